// The encoders for AVX-512.
#include "quantize/encode_table-inl.h"

namespace pocketlm {

extern const Encoders encoders_avx512;
const Encoders encoders_avx512 = table("avx512");

}  // namespace pocketlm
