// Blocks worked out by hand (tests/oracle compares all of them with other implementations), and string arrays that lie.
#include <cstring>
#include <string>

#include "base/error.h"
#include "base/float16.h"
#include "formats/blocks.h"
#include "formats/decode.h"
#include "formats/k_scales.h"
#include "formats/strings.h"
#include "tests/check.h"

using namespace pocketlm;

namespace {

template <class Block>
std::vector<float> decode(int type, const Block& block) {
  std::vector<float> out(size_t(block_elements(type)));
  dequantize(type, reinterpret_cast<const std::byte*>(&block), int64_t(out.size()), out.data());
  return out;
}

void halves_round_trip() {
  for (uint32_t h = 0; h < 0x10000; ++h) {
    const float x = f32_from_f16(uint16_t(h));
    if (x == x) CHECK(f16_from_f32(x) == h);
  }
  CHECK(f16_from_f32(65520.0f) == 0x7c00);
  CHECK(f16_from_f32(65519.0f) == 0x7bff);
  CHECK(f16_from_f32(0x1p-25f) == 0);
  CHECK(f16_from_f32(0x1.8p-25f) == 1);
}

void blocks_decode_as_written() {
  BlockQ4_0 q4{f16_from_f32(0.5f), {}};
  q4.qs[0] = 0xf0;
  CHECK(decode(kQ4_0, q4)[0] == -4.0f && decode(kQ4_0, q4)[16] == 3.5f);

  BlockQ5_1 q5{f16_from_f32(2.0f), f16_from_f32(-1.0f), {}, {}};
  q5.qh[2] = 1;  // the fifth bit of weight 16
  q5.qs[0] = 0x30;
  CHECK(decode(kQ5_1, q5)[0] == -1.0f && decode(kQ5_1, q5)[16] == 2.0f * 19 - 1);

  BlockQ6_K q6{};
  q6.d = f16_from_f32(1.0f);
  q6.scales[15] = -3;
  q6.ql[127] = 0x70;  // weight 255: nibble 7
  q6.qh[63] = 0x80;   // and bit pair 2
  CHECK(decode(kQ6_K, q6)[255] == -3.0f * (7 + 32 - 32));

  BlockTQ2_0 ternary{};
  ternary.d = f16_from_f32(0.25f);
  ternary.qs[33] = 0x80;  // weight 128 + 96 + 1
  CHECK(decode(kTQ2_0, ternary)[225] == 0.25f && decode(kTQ2_0, ternary)[224] == -0.25f);

  struct { uint8_t qs[32]; float scale; uint8_t unused[28]; } tensor{{}, 0.1f, {}};
  tensor.qs[1] = 0x86;  // weights 1, 33, 65, 97: codes 2, 0, 1, 2
  CHECK(tensor_bytes(kI2_S, 128) == sizeof(tensor));
  CHECK(decode(kI2_S, tensor)[1] == 0.1f && decode(kI2_S, tensor)[33] == -0.1f);
  CHECK(decode(kI2_S, tensor)[65] == 0.0f && decode(kI2_S, tensor)[97] == 0.1f);
}

void six_bit_scales_unpack() {
  uint8_t s[12] = {};
  s[0] = 0x40 | 5;   // scale 0 is 5; the top bits belong to scale 4
  s[4] = 0xc0 | 9;   // min 0 is 9; the top bits belong to min 4
  s[8] = 0x21;       // scale 4 low bits 1, min 4 low bits 2
  CHECK(q4_k_scale_min(s, 0).scale == 5 && q4_k_scale_min(s, 0).min == 9);
  CHECK(q4_k_scale_min(s, 4).scale == (1 | 1 << 4) && q4_k_scale_min(s, 4).min == (2 | 3 << 4));
  uint8_t three[12] = {};
  CHECK(q3_k_scale(three, 7) == -32);
  three[7] = 0xf0;
  three[11] = 0xc0;
  CHECK(q3_k_scale(three, 15) == 31);
}

void unknown_types_are_refused() {
  for (const int type : {-1, 4, 5, 9, 16, 31, 1000}) CHECK_THROWS(FormatError, block_bytes(type));
}

std::vector<std::byte> bytes_of(const std::vector<std::string>& values) {
  std::string out;
  for (const std::string& value : values) {
    const uint64_t length = value.size();
    out.append(reinterpret_cast<const char*>(&length), 8);
    out += value;
  }
  const auto* data = reinterpret_cast<const std::byte*>(out.data());
  return {data, data + out.size()};
}

void strings_are_read_within_bounds() {
  const auto buffer = bytes_of({"one", "", "three"});
  const Strings strings = read_strings(buffer, 0, 3);
  CHECK(strings.values[0] == "one" && strings.values[1].empty() && strings.values[2] == "three");
  CHECK(strings.end == buffer.size());
  for (size_t cut = 0; cut < buffer.size(); ++cut)
    CHECK_THROWS(FormatError, read_strings(std::span(buffer).first(cut), 0, 3));
  CHECK_THROWS(FormatError, read_strings(buffer, 0, UINT64_MAX));
  CHECK_THROWS(FormatError, read_strings(buffer, UINT64_MAX, 1));
  auto lying = buffer;
  for (const uint64_t length : {uint64_t(1) << 63, UINT64_MAX, UINT64_MAX - 7, uint64_t(lying.size())}) {
    std::memcpy(lying.data(), &length, 8);
    CHECK_THROWS(FormatError, read_strings(lying, 0, 3));
  }
}

}  // namespace

int main() {
  halves_round_trip();
  blocks_decode_as_written();
  six_bit_scales_unpack();
  unknown_types_are_refused();
  strings_are_read_within_bounds();
  return report();
}
