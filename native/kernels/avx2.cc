// The kernels for AVX2, FMA and F16C.
#include "isa/avx2.h"
// The bodies come after their instruction set.
#include "kernels/table-inl.h"

namespace pocketlm {

extern const Kernels kernels_avx2;
const Kernels kernels_avx2 = kTable;

}  // namespace pocketlm
