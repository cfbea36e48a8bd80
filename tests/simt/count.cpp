// Counts of what a GPU would move. The k-th time that a warp's lanes execute one access forms one
// request; from its addresses follow sectors of device memory and passes of the shared banks.
#include <algorithm>
#include <cstdio>
#include <map>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "tests/simt/engine.h"

namespace simt {

Counters launch_counters;

namespace {

struct Request {
  uint32_t lanes = 0;  // mask
  uint32_t bytes = 0;  // of one lane
  uintptr_t address[32];
};
// The accesses of one warp at one place. A wrapper's place may differ between calls of one line by
// what is loaded and stored: cp.async does both.
struct Place {
  const void* code;
  const char* file;
  unsigned line, warp;
  bool store, shared;
  bool operator==(const Place&) const = default;
};
struct HashOfPlace {
  size_t operator()(const Place& p) const {
    return (reinterpret_cast<size_t>(p.code) * 31 + reinterpret_cast<size_t>(p.file) + p.line) *
               67 +
           p.warp * 4 + p.store * 2 + p.shared;
  }
};
struct Stream {
  uint32_t executed[32] = {};
  std::vector<Request> requests;
};
std::unordered_map<Place, Stream, HashOfPlace> block_streams;
std::unordered_set<uintptr_t> loaded_sectors, stored_sectors;  // of the running launch
std::map<const void*, Counters> by_kernel;
std::map<std::tuple<const void*, const char*, unsigned, bool, bool>, SiteCount> by_site;

constexpr unsigned kSector = 32;

// Passes of the 32 four-byte banks for the lanes [first, last): the most different words in a bank.
uint64_t bank_passes(const Request& request, int first, int last) {
  std::set<uintptr_t> words[32];
  size_t passes = 0;
  for (int lane = first; lane < last; ++lane) {
    if (((request.lanes >> lane) & 1) == 0) continue;
    const uintptr_t begin = request.address[lane] / 4;
    const uintptr_t end = (request.address[lane] + request.bytes + 3) / 4;
    for (uintptr_t word = begin; word < end; ++word) {
      words[word % 32].insert(word);
      passes = std::max(passes, words[word % 32].size());
    }
  }
  return passes;
}

void add_shared(const Request& request, SiteCount& site) {
  // Accesses of 8 bytes go by half warps, of 16 bytes by quarter warps.
  const int group = request.bytes >= 16 ? 8 : request.bytes == 8 ? 16 : 32;
  for (int first = 0; first < 32; first += group) {
    const uint64_t passes = bank_passes(request, first, first + group);
    site.units += passes;
    site.ideal += passes > 0;
  }
}

void add_global(const Request& request, bool store, SiteCount& site) {
  std::set<uintptr_t> sectors, addresses;
  for (int lane = 0; lane < 32; ++lane) {
    if (((request.lanes >> lane) & 1) == 0) continue;
    const uintptr_t begin = request.address[lane];
    addresses.insert(begin);
    for (uintptr_t s = begin / kSector; s <= (begin + request.bytes - 1) / kSector; ++s) {
      sectors.insert(s);
    }
  }
  (store ? stored_sectors : loaded_sectors).insert(sectors.begin(), sectors.end());
  site.units += sectors.size();
  site.ideal += (addresses.size() * request.bytes + kSector - 1) / kSector;
}

void add(Counters& into, const Counters& from) {
  into.launches += from.launches;
  into.blocks += from.blocks;
  into.threads += from.threads;
  into.barriers += from.barriers;
  into.collectives += from.collectives;
  into.mma += from.mma;
  into.ldmatrix += from.ldmatrix;
  into.load_bytes += from.load_bytes;
  into.store_bytes += from.store_bytes;
  into.global_requests += from.global_requests;
  into.sectors += from.sectors;
  into.ideal_sectors += from.ideal_sectors;
  into.unique_load_bytes += from.unique_load_bytes;
  into.unique_store_bytes += from.unique_store_bytes;
  into.shared_load_bytes += from.shared_load_bytes;
  into.shared_store_bytes += from.shared_store_bytes;
  into.wavefronts += from.wavefronts;
  into.ideal_wavefronts += from.ideal_wavefronts;
}

void add_stream(const Place& place, const Stream& stream) {
  SiteCount delta{};
  for (const Request& request : stream.requests) {
    delta.requests += 1;
    delta.bytes += uint64_t(__builtin_popcount(request.lanes)) * request.bytes;
    place.shared ? add_shared(request, delta) : add_global(request, place.store, delta);
  }
  Counters& c = launch_counters;
  if (place.shared) {
    (place.store ? c.shared_store_bytes : c.shared_load_bytes) += delta.bytes;
    c.wavefronts += delta.units;
    c.ideal_wavefronts += delta.ideal;
  } else {
    (place.store ? c.store_bytes : c.load_bytes) += delta.bytes;
    c.global_requests += delta.requests;
    c.sectors += delta.units;
    c.ideal_sectors += delta.ideal;
  }
  SiteCount& site = by_site[{place.code, place.file, place.line, place.store, place.shared}];
  site.requests += delta.requests;
  site.bytes += delta.bytes;
  site.units += delta.units;
  site.ideal += delta.ideal;
}

// Without the namespace that has no name, the result type and the parameters.
std::string short_name(std::string name) {
  const std::string unnamed = "(anonymous namespace)::";
  for (size_t at; (at = name.find(unnamed)) != std::string::npos;) name.erase(at, unnamed.size());
  if (const size_t arguments = name.find('('); arguments != std::string::npos) {
    name.resize(arguments);
  }
  return name.starts_with("void ") ? name.substr(5) : name;
}

}  // namespace

void count_access(const volatile void* pointer, size_t bytes, Access access, const Site& site) {
  const bool shared = in_shared(pointer);
  if (!shared && !in_device_memory(pointer)) return;
  const Place place{site.where ? nullptr : site.code,
                    site.where ? site.where->file_name() : nullptr,
                    site.where ? site.where->line() : 0,
                    current->linear / 32,
                    access == Access::store,
                    shared};
  Stream& stream = block_streams[place];
  const uint32_t nth = stream.executed[current->lane]++;
  if (stream.requests.size() <= nth) stream.requests.resize(nth + 1);
  Request& request = stream.requests[nth];
  request.lanes |= 1u << current->lane;
  request.bytes = uint32_t(bytes);
  request.address[current->lane] = reinterpret_cast<uintptr_t>(pointer);
}

void count_end_of_block() {
  for (const auto& [place, stream] : block_streams) add_stream(place, stream);
  block_streams.clear();
}

void count_end_of_launch(const void* kernel) {
  launch_counters.unique_load_bytes = loaded_sectors.size() * kSector;
  launch_counters.unique_store_bytes = stored_sectors.size() * kSector;
  loaded_sectors.clear();
  stored_sectors.clear();
  add(by_kernel[kernel], launch_counters);
  launch_counters = {};
}

Counters counters() {
  Counters sum;
  for (const auto& [kernel, one] : by_kernel) add(sum, one);
  return sum;
}

std::vector<std::pair<std::string, Counters>> kernel_counters() {
  std::vector<std::pair<std::string, Counters>> all;
  for (const auto& [kernel, one] : by_kernel) {
    all.emplace_back(short_name(function_of_code(kernel)), one);
  }
  return all;
}

std::vector<SiteCount> site_counters() {
  std::map<std::tuple<std::string, bool, bool>, SiteCount> by_line;
  for (const auto& [key, one] : by_site) {
    const auto& [code, file, line, store, shared] = key;
    std::string where = code ? line_of_code(code) : std::string(file) + ":" + std::to_string(line);
    if (const size_t slash = where.rfind('/'); slash != std::string::npos)
      where.erase(0, slash + 1);
    SiteCount& sum = by_line[{where, store, shared}];
    sum = {where,
           store,
           shared,
           sum.requests + one.requests,
           sum.bytes + one.bytes,
           sum.units + one.units,
           sum.ideal + one.ideal};
  }
  std::vector<SiteCount> all;
  for (const auto& [key, one] : by_line) all.push_back(one);
  std::sort(all.begin(), all.end(),
            [](const SiteCount& a, const SiteCount& b) { return a.units > b.units; });
  return all;
}

std::string counter_text() {
  std::string text;
  char line[512];
  for (const auto& [name, c] : kernel_counters()) {
    std::snprintf(
        line, sizeof line,
        "%s: %llu launches, %llu blocks, %llu mma; device memory %llu + %llu bytes, %llu "
        "sectors (%.1f %%), distinct %llu + %llu bytes; shared %llu wavefronts (%.1f %%)\n",
        name.c_str(), (unsigned long long)c.launches, (unsigned long long)c.blocks,
        (unsigned long long)c.mma, (unsigned long long)c.load_bytes,
        (unsigned long long)c.store_bytes, (unsigned long long)c.sectors,
        100 * c.sector_efficiency(), (unsigned long long)c.unique_load_bytes,
        (unsigned long long)c.unique_store_bytes, (unsigned long long)c.wavefronts,
        100 * c.shared_efficiency());
    text += line;
  }
  for (const SiteCount& s : site_counters()) {
    std::snprintf(
        line, sizeof line, "  %-28s %s %-5s %9llu requests %11llu bytes %9llu %s (ideal %llu)\n",
        s.where.c_str(), s.shared ? "shared" : "device", s.store ? "store" : "load",
        (unsigned long long)s.requests, (unsigned long long)s.bytes, (unsigned long long)s.units,
        s.shared ? "wavefronts" : "sectors", (unsigned long long)s.ideal);
    text += line;
  }
  return text;
}

void reset_counters() {
  by_kernel.clear();
  by_site.clear();
}

}  // namespace simt
