// How fast the linear kernels of the instruction set in use compute when no memory slows them: what bounds a prompt.
#pragma once

#include <vector>

#include "pack/layout.h"

namespace pocketlm {

// Multiply-adds per second that `threads` threads do together in the matmul of a layout, on a matrix and the rows of a
// prompt that stay in the caches: of each of at most `passes` passes of about `seconds`, fewer where a single product
// takes longer. The very kernels that a model runs on are timed, unpacking and scales included, and not the instruction
// alone. Throws std::invalid_argument for values out of range.
std::vector<double> multiply_add_rate(Layout layout, int threads, double seconds, int passes);

}  // namespace pocketlm
