// The kernels for AVX-512 with VNNI.
#include "isa/avx512.h"
// The bodies come after their instruction set.
#include "kernels/table-inl.h"

namespace pocketlm {

extern const Kernels kernels_avx512;
const Kernels kernels_avx512 = kTable;

}  // namespace pocketlm
