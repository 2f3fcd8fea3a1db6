// The encoders for any machine.
#include "quantize/encode_table-inl.h"

namespace pocketlm {

extern const Encoders encoders_baseline;
const Encoders encoders_baseline = table("baseline");

}  // namespace pocketlm
