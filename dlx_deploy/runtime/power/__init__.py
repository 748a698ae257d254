"""Energy per inference where a sensor can be read: INA3221 on Jetsons, RAPL for CPUs, NVML for NVIDIA GPUs."""
