// The two errors the core throws; the bindings turn them into the Python classes of the same meaning.
// Native code never aborts on input: kernels assume valid arguments, everything above them checks.
#pragma once

#include <stdexcept>
#include <string>

namespace pocketlm {

// A file's bytes break their format.  Python: ModelFileError.
struct FormatError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Memory that was asked for is not there.  Python: CapacityError.
struct CapacityError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// An argument is out of range.  Python: ValueError (our own bug when it reaches a user).
inline void require(bool condition, const char* message) {
  if (!condition) throw std::invalid_argument(message);
}

}  // namespace pocketlm
