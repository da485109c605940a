/* A driver library of two GPUs, the second of which counts no energy. */
#include <string.h>

struct memory { unsigned long long total, free, used; };
struct utilization { unsigned int gpu, memory; };

int nvmlInit_v2(void) { return 0; }
int nvmlInitWithFlags(unsigned int f) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned int *n) { *n = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int i, void **d) { *d = (void *)(unsigned long)(i + 1); return 0; }
int nvmlDeviceGetName(void *d, char *s, unsigned int n) { strcpy(s, "Fake GPU"); return 0; }
int nvmlDeviceGetUUID(void *d, char *s, unsigned int n) { strcpy(s, d == (void *)1 ? "GPU-1" : "GPU-2"); return 0; }
int nvmlDeviceGetMemoryInfo(void *d, struct memory *m) { m->total = 1000; m->free = 600; m->used = 400; return 0; }
int nvmlDeviceGetUtilizationRates(void *d, struct utilization *u) { u->gpu = 25; u->memory = 1; return 0; }
int nvmlDeviceGetPowerUsage(void *d, unsigned int *mw) { *mw = 70500; return 0; }
int nvmlDeviceGetTotalEnergyConsumption(void *d, unsigned long long *mj) {
	if (d != (void *)1) return 3; /* not supported */
	*mj = 123456;
	return 0;
}
