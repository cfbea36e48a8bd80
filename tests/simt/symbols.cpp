// Kernels by the symbol table of this program, which knows them without running them. A constant
// of type SharedArray that is local to a function `_Z<function>` has the symbol
// `_ZZ<function>E<length>simt_shared_<array>`.
#include <elf.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <mutex>

#include "tests/simt/engine.h"

extern "C" const char __executable_start;  // first byte of this program in memory, from the linker

namespace simt {
namespace {

struct Symbol {
  std::string_view name, file;  // of the source, where the symbol is local to it
  uintptr_t address;
  unsigned kind;
};

class Symbols {
 public:
  Symbols() {
    std::ifstream program("/proc/self/exe", std::ios::binary);
    const auto read = [&](void* to, size_t bytes, size_t offset) {
      program.seekg(static_cast<std::streamoff>(offset));
      program.read(static_cast<char*>(to), static_cast<std::streamsize>(bytes));
    };
    Elf64_Ehdr header{};
    read(&header, sizeof header, 0);
    std::vector<Elf64_Shdr> sections(header.e_shnum);
    read(sections.data(), sections.size() * sizeof(Elf64_Shdr), header.e_shoff);
    for (const Elf64_Shdr& section : sections) {
      if (section.sh_type != SHT_SYMTAB) continue;
      const Elf64_Shdr& strings = sections[section.sh_link];
      names_.resize(strings.sh_size);
      read(names_.data(), names_.size(), strings.sh_offset);
      std::vector<Elf64_Sym> symbols(section.sh_size / sizeof(Elf64_Sym));
      read(symbols.data(), symbols.size() * sizeof(Elf64_Sym), section.sh_offset);
      add(symbols, header.e_type == ET_DYN);
    }
    if (!program || all_.empty()) {
      std::fprintf(stderr,
                   "simt: this program has no symbol table, which the limits of launches are read "
                   "from; do not strip it\n");
      std::abort();
    }
  }

  Kernel kernel(uintptr_t address) const {
    for (const Symbol& symbol : all_) {
      if (symbol.kind != STT_FUNC || symbol.address != address) continue;
      Kernel kernel{std::string(symbol.name), std::string(symbol.file), {}};
      const std::string arrays = "_Z" + kernel.symbol.substr(1) + "E";
      for (const Symbol& one : all_) {
        if (one.kind != STT_OBJECT || one.file != symbol.file || !one.name.starts_with(arrays) ||
            one.name.find("simt_shared_", arrays.size()) == one.name.npos)
          continue;
        const auto* array = reinterpret_cast<const SharedArray*>(one.address);
        kernel.arrays.push_back(array);
        const size_t begin =
            (kernel.static_bytes + array->alignment - 1) / array->alignment * array->alignment;
        kernel.static_bytes = begin + array->bytes;
      }
      return kernel;
    }
    std::fprintf(stderr, "simt: a kernel without a symbol\n");
    std::abort();
  }

 private:
  // Local symbols follow that of their file; the others come last.
  void add(const std::vector<Elf64_Sym>& symbols, bool relocated) {
    const uintptr_t base = relocated ? reinterpret_cast<uintptr_t>(&__executable_start) : 0;
    std::string_view file;
    for (const Elf64_Sym& symbol : symbols) {
      const std::string_view name = names_.data() + symbol.st_name;
      const unsigned kind = ELF64_ST_TYPE(symbol.st_info);
      const bool local = ELF64_ST_BIND(symbol.st_info) == STB_LOCAL;
      if (kind == STT_FILE) file = name;
      if ((kind == STT_FUNC || kind == STT_OBJECT) && symbol.st_shndx != SHN_UNDEF)
        all_.push_back({name, local ? file : std::string_view(), base + symbol.st_value, kind});
    }
  }

  std::string names_;
  std::vector<Symbol> all_;
};

}  // namespace

const Kernel& kernel_at(const void* address) {
  static const Symbols symbols;
  static std::map<const void*, Kernel> kernels;
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  auto [entry, fresh] = kernels.try_emplace(address);
  if (fresh) entry->second = symbols.kernel(reinterpret_cast<uintptr_t>(address));
  return entry->second;
}

}  // namespace simt
