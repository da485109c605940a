package special

import "math"

const (
	pi2 = math.Pi * math.Pi
	pi4 = pi2 * pi2
	pi6 = pi4 * pi2
)

// pelzGood is the lower tail by the expansion of Pelz and Good (1976),
// K0 + K1/√n + K2/n + K3/n^1.5 in z = d√n, in the form that converges for
// small z.
func pelzGood(n int, d float64) float64 {
	z := math.Sqrt(float64(n)) * d
	qlog := -pi2 / 8 / (z * z)
	if qlog < -708 {
		return 0
	}
	k := pelzGoodOdd(z, math.Exp(qlog))
	k2, k3 := pelzGoodAll(z)
	k[2] += k2
	k[3] += k3
	root := math.Sqrt(float64(n))
	return clip(k[0] + k[1]/root + k[2]/float64(n) + k[3]/(float64(n)*root))
}

// pelzGoodOdd sums the terms over odd integers by Horner's scheme in q^(8k).
func pelzGoodOdd(z, q float64) [4]float64 {
	z2 := z * z
	z4, z6, z8 := z2*z2, z2*z2*z2, z2*z2*z2*z2
	var sum [4]float64
	for k := int(math.Ceil(16 * z / math.Pi)); k > 0; k-- {
		m2 := float64(2*k-1) * float64(2*k-1)
		m4, m6 := m2*m2, m2*m2*m2
		coeff := [4]float64{
			1,
			-z2 + pi2/4*m2,
			6*z6 + 2*z4 + (2*z4-5*z2)*pi2/4*m2 + pi4*(1-2*z2)/16*m4,
			-30*z6 - 90*z8 + pi2*(135*z4-96*z6)/4*m2 + pi4*(-60*z2+212*z4)/16*m4 + pi6*(5-30*z2)/64*m6,
		}
		qk := math.Pow(q, float64(8*k))
		for i := range sum {
			sum[i] = sum[i]*qk + coeff[i]
		}
	}
	scale := [4]float64{z, 6 * z4, 72 * z6 * z, 6480 * z8 * z2}
	for i := range sum {
		sum[i] *= q * math.Sqrt(2*math.Pi) / scale[i]
	}
	return sum
}

// pelzGoodAll sums the extra terms of K2 and K3 over all integers.
func pelzGoodAll(z float64) (k2, k3 float64) {
	q := math.Exp(-pi2 / 2 / (z * z))
	for k := math.Ceil(16 * z / math.Pi); k > 0; k-- {
		power := math.Pow(q, k*k)
		k2 += k * k * power
		k3 += (3*z*z - pi2*k*k) * k * k * power
	}
	root := math.Sqrt(2 * math.Pi)
	z3 := z * z * z
	return k2 * pi2 * root / (-36 * z3), k3 * pi2 * root / (216 * z3 * z3)
}
