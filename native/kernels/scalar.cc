// The kernels for any machine: the definition that the others are tested against.
#include "isa/scalar.h"
// The bodies come after their instruction set.
#include "kernels/table-inl.h"

namespace pocketlm {

extern const Kernels kernels_scalar;
const Kernels kernels_scalar = kTable;

}  // namespace pocketlm
