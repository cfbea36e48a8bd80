#include "base/checksum.h"

#include <xxhash.h>

#include <cstdio>

#include "base/error.h"

namespace rodimus {

void Xxh64::Free::operator()(XXH64_state_s* state) const { XXH64_freeState(state); }

Xxh64::Xxh64() : state_(XXH64_createState()) {
  CHECK(state_ != nullptr && XXH64_reset(state_.get(), 0) == XXH_OK, "xxh64: out of memory");
}

void Xxh64::update(std::span<const std::byte> bytes) {
  if (!bytes.empty()) XXH64_update(state_.get(), bytes.data(), bytes.size());
}

uint64_t Xxh64::digest() const { return XXH64_digest(state_.get()); }

uint64_t xxh64(std::span<const std::byte> bytes) { return XXH64(bytes.data(), bytes.size(), 0); }

uint64_t xxh64(std::string_view text) { return xxh64(std::as_bytes(std::span(text))); }

std::string hex64(uint64_t value) {
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(value));
  return text;
}

}  // namespace rodimus
