// What the machine can do at best, measured: the yardstick that `pocketlm bench` holds the engines against.
#pragma once

#include <cstddef>

namespace pocketlm {

// Bytes per second that `threads` threads read together from a buffer of `bytes`, which should be far larger than the
// last-level cache: the best of `passes` plain loops over it. Throws CapacityError where the buffer cannot be had.
double read_bandwidth(int threads, size_t bytes, int passes);

}  // namespace pocketlm
