/* Has a process see a lesser x86 CPU than it runs on, so that ONNX Runtime takes the kernels of that one.
 *
 *     gcc -O2 -shared -fPIC -o masked_cpuid.so masked_cpuid.c
 *     MASKED_CPUID=avx2 LD_PRELOAD=./masked_cpuid.so python ...
 *
 * Linux on a CPU that can fault on CPUID (/proc/cpuinfo: cpuid_fault). Each CPUID becomes a signal, whose handler asks
 * the real one and clears what lies beyond MASKED_CPUID: avx2 (no AVX-512, no VNNI of any kind), avx-vnni (AVX2 and
 * AVX-VNNI) or avx512 (no VNNI of any kind). What the kernels cost is then that of this machine at those instructions.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

enum { ARCH_CPUID = 0x1012, EXTENDED = 7, INSTRUCTION_BYTES = 2 };
enum { NONE, AVX512, AVX2, AVX_VNNI } level;

static const unsigned VNNI_ECX = 1u << 11, AMX_EDX = 1u << 22 | 1u << 24 | 1u << 25;
static const unsigned AVX512_EBX = 1u << 16 | 1u << 17 | 1u << 21 | 1u << 26 | 1u << 27 | 1u << 28 | 1u << 30 | 1u << 31;
static const unsigned AVX512_ECX = 1u << 1 | 1u << 6 | 1u << 12 | 1u << 14, AVX512_EDX = 1u << 2 | 1u << 3 | 1u << 8 | 1u << 23;
static const unsigned AVX_VNNI_EAX = 1u << 4 | 1u << 23, BF16_EAX = 1u << 5, INT8_EDX = 1u << 4 | 1u << 5;

static void answer(int signal_number, siginfo_t *info, void *context)
{
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    const unsigned char *code = (const unsigned char *)registers[REG_RIP];
    if (code[0] != 0x0f || code[1] != 0xa2) { /* a fault of its own */
        signal(SIGSEGV, SIG_DFL);
        return;
    }
    unsigned leaf = registers[REG_RAX], sub = registers[REG_RCX], eax = leaf, ebx, ecx = sub, edx;
    syscall(SYS_arch_prctl, ARCH_CPUID, 1);
    __asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "+c"(ecx), "=d"(edx));
    syscall(SYS_arch_prctl, ARCH_CPUID, 0);
    if (leaf == EXTENDED && sub == 0) {
        ecx &= ~VNNI_ECX, edx &= ~AMX_EDX;
        if (level != AVX512)
            ebx &= ~AVX512_EBX, ecx &= ~AVX512_ECX, edx &= ~AVX512_EDX;
    } else if (leaf == EXTENDED && sub == 1) {
        eax &= ~BF16_EAX, edx &= ~INT8_EDX;
        if (level != AVX_VNNI)
            eax &= ~AVX_VNNI_EAX;
    }
    registers[REG_RAX] = eax, registers[REG_RBX] = ebx, registers[REG_RCX] = ecx, registers[REG_RDX] = edx;
    registers[REG_RIP] += INSTRUCTION_BYTES;
}

__attribute__((constructor)) static void mask(void)
{
    const char *wanted = getenv("MASKED_CPUID");
    if (!wanted)
        return;
    level = !strcmp(wanted, "avx2") ? AVX2 : !strcmp(wanted, "avx-vnni") ? AVX_VNNI : !strcmp(wanted, "avx512") ? AVX512 : NONE;
    struct sigaction action = {.sa_sigaction = answer, .sa_flags = SA_SIGINFO | SA_NODEFER};
    if (!level || sigaction(SIGSEGV, &action, NULL) || syscall(SYS_arch_prctl, ARCH_CPUID, 0))
        _exit(4);
}
