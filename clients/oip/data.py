"""Prints a small table of loans, the same every time."""
import random

random.seed(1)
print("income,debt,defaulted")
for _ in range(3000):
    income, debt = random.uniform(1, 10), random.uniform(0, 10)
    print(f"{income:.3f},{debt:.3f},{int(debt - income + random.gauss(0, 2) > 0)}")
