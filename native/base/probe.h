// What the machine can do at best, measured: the yardstick that `pocketlm bench` holds the engines against and that
// `pocketlm device` tells.
#pragma once

#include <cstddef>
#include <vector>

namespace pocketlm {

// Bytes per second that `threads` threads read together from a buffer of `bytes`, which should be far larger than the
// last-level cache: of each of `passes` plain loops over it. Throws CapacityError where the buffer cannot be had.
std::vector<double> read_bandwidth(int threads, size_t bytes, int passes);

}  // namespace pocketlm
