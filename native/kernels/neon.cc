// The kernels for ARMv8.2 with the dot product.
#include "isa/neon.h"
// The bodies come after their instruction set.
#include "kernels/table-inl.h"

namespace pocketlm {

extern const Kernels kernels_neon;
const Kernels kernels_neon = kTable;

}  // namespace pocketlm
