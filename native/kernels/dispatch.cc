// Which table of kernels is in use.
#include <cstdlib>
#include <stdexcept>
#include <string>

#include "kernels/kernels.h"

#if defined(POCKETLM_HAS_NEON) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace pocketlm {

extern const Kernels kernels_scalar;
#if defined(POCKETLM_HAS_AVX2)
extern const Kernels kernels_avx2;
#endif
#if defined(POCKETLM_HAS_AVX512)
extern const Kernels kernels_avx512;
#endif
#if defined(POCKETLM_HAS_ASIMD)
extern const Kernels kernels_asimd;
#endif
#if defined(POCKETLM_HAS_NEON)
extern const Kernels kernels_neon;
#endif

namespace {

#if defined(POCKETLM_HAS_NEON)
bool has_dot_product() {
#if defined(__linux__)
  return getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
#else
  return true;  // in every chip of Apple's that runs macOS
#endif
}
#endif

struct Tables {
  const Kernels* of[4];
  size_t count = 0;

  // Slowest first. __builtin_cpu_supports asks CPUID and whether the operating system saves the registers.
  Tables() {
    of[count++] = &kernels_scalar;
#if defined(POCKETLM_HAS_AVX2)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"))
      of[count++] = &kernels_avx2;
#endif
#if defined(POCKETLM_HAS_AVX512)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni") && count == 2)
      of[count++] = &kernels_avx512;
#endif
#if defined(POCKETLM_HAS_ASIMD)
    of[count++] = &kernels_asimd;  // part of ARMv8.0
#endif
#if defined(POCKETLM_HAS_NEON)
    if (has_dot_product()) of[count++] = &kernels_neon;
#endif
  }
};

const Tables& tables() {
  static const Tables all;
  return all;
}

const Kernels* find(std::string_view name) {
  std::string names;
  for (const Kernels* table : runnable_kernels()) {
    if (name == table->name) return table;
    names += (names.empty() ? "" : ", ") + std::string(table->name);
  }
  throw std::invalid_argument("instruction set '" + std::string(name) + "' is unknown or cannot run on this machine; " +
                              "use one of: " + names);
}

// Chosen when it is first asked for; throws again at every call while POCKETLM_ISA is wrong.
const Kernels*& selected() {
  static const Kernels* table = [] {
    const char* forced = std::getenv("POCKETLM_ISA");
    return forced && *forced ? find(forced) : runnable_kernels().back();
  }();
  return table;
}

}  // namespace

std::span<const Kernels* const> runnable_kernels() { return {tables().of, tables().count}; }

const Kernels& kernels() { return *selected(); }

void select_kernels(std::string_view name) {
  const Kernels* table = find(name);
  selected() = table;
}

}  // namespace pocketlm
