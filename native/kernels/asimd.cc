// The kernels for ARMv8.0, which every 64-bit Arm CPU runs.
#include "isa/neon.h"
// The bodies come after their instruction set.
#include "kernels/table-inl.h"

namespace pocketlm {

extern const Kernels kernels_asimd;
const Kernels kernels_asimd = kTable;

}  // namespace pocketlm
