// The encoders for AVX2.
#include "quantize/encode_table-inl.h"

namespace pocketlm {

extern const Encoders encoders_avx2;
const Encoders encoders_avx2 = table("avx2");

}  // namespace pocketlm
