"""What the compiler made of each kernel: reads the device code inside objects, without cuobjdump.

An object of nvcc (--no-compress) holds one ELF file ("cubin") for each architecture. Of each kernel it
has the code (.text.NAME), resources (.nv.info, .nv.info.NAME) and shared memory (.nv.shared.NAME).
Since sm_70 an instruction is 16 bytes; the low 9 bits say what it does, the next 3 of what kind its
operands are. The numbers of opcodes, attributes and limits were read from what ptxas -v prints for
known kernels (sass_test.py repeats that) and from the CUDA documents.
"""
import collections
import dataclasses
import re
import struct
import subprocess

EM_CUDA = 190
OPCODES = {0x03C: "HMMA", 0x03B: "LDSM", 0x1AE: "LDGSTS", 0x183: "LDL", 0x187: "STL", 0x11D: "BAR"}
REGISTER_COUNT, FRAME_SIZE, MAX_THREADS = 0x2F, 0x11, 0x05  # attributes of .nv.info


@dataclasses.dataclass
class Gpu:
    """Limits of one multiprocessor ("Compute Capabilities" in the CUDA programming guide)."""
    shared_bytes: int
    registers: int = 65536
    warps: int = 64
    blocks: int = 32


GPUS = {"sm_80": Gpu(164 << 10), "sm_90": Gpu(228 << 10), "sm_100": Gpu(228 << 10)}
RESERVED_SHARED = 1024  # of each block, by the system


@dataclasses.dataclass
class Kernel:
    name: str  # mangled
    arch: str  # "sm_90"
    registers: int
    shared: int  # static, bytes
    frame: int  # bytes of local memory that a thread has
    threads: int | None  # from __launch_bounds__
    opcodes: collections.Counter

    def blocks_per_sm(self, dynamic_shared):
        """How many blocks of launch-bound size fit on a multiprocessor of this architecture."""
        gpu = GPUS[self.arch]
        warps = -(-self.threads // 32)
        by_warp = -(-self.registers * 32 // 256) * 256  # registers come in units of 256 for a warp
        register_warps = gpu.registers // by_warp // 4 * 4  # and warps in units of four
        shared = -(-(self.shared + dynamic_shared) // 128) * 128 + RESERVED_SHARED
        return min(gpu.blocks, gpu.warps // warps, register_warps // warps,
                   gpu.shared_bytes // shared)


class Elf:
    def __init__(self, data):
        self.data = data
        offset, = struct.unpack_from("<Q", data, 40)
        self.flags, = struct.unpack_from("<I", data, 48)
        size, count, names = struct.unpack_from("<HHH", data, 58)
        rows = [struct.unpack_from("<IIQQQQIIQQ", data, offset + i * size) for i in range(count)]
        self.end = offset + count * size
        self.sections = []  # (name, kind, offset, size)
        for row in rows:
            self.sections.append((self.text(rows[names][4] + row[0]), row[1], row[4], row[5]))

    def text(self, offset):
        return self.data[offset:self.data.index(b"\0", offset)].decode()

    def section(self, name):
        """Content of a section; of a section without content (.bss-like) its size counts, see size()."""
        for found, _, offset, size in self.sections:
            if found == name:
                return self.data[offset:offset + size]
        return b""

    def size(self, name):
        return next((size for found, _, _, size in self.sections if found == name), 0)

    def symbol_names(self):
        strings = self.section(".strtab")
        symbols = self.section(".symtab")
        names = []
        for offset in range(0, len(symbols), 24):
            name, = struct.unpack_from("<I", symbols, offset)
            names.append(strings[name:strings.index(b"\0", name)].decode())
        return names


def attributes(section):
    """(attribute, value bytes) of a .nv.info section."""
    at = 0
    while at + 4 <= len(section):
        form, attribute, size = struct.unpack_from("<BBH", section, at)
        at += 4
        if form == 4:  # `size` bytes follow; otherwise the value is in the header
            yield attribute, section[at:at + size]
            at += size


def arch_of(elf):
    for shift in (8, 0):  # CUDA 13 has it in bits 8 to 15, older ones in 0 to 7
        number = elf.flags >> shift & 0xFF
        if f"sm_{number}" in GPUS:
            return f"sm_{number}"
    raise ValueError(f"device code for an unknown architecture, ELF flags {elf.flags:#x}")


def kernels_of_cubin(data):
    elf = Elf(data)
    arch, symbols = arch_of(elf), elf.symbol_names()
    by_symbol = collections.defaultdict(dict)
    for attribute, value in attributes(elf.section(".nv.info")):
        if attribute in (REGISTER_COUNT, FRAME_SIZE):
            symbol, number = struct.unpack("<II", value)
            by_symbol[symbols[symbol]][attribute] = number
    for section, _, offset, size in elf.sections:
        if not section.startswith(".text."):
            continue
        name = section.removeprefix(".text.")
        threads = None
        for attribute, value in attributes(elf.section(f".nv.info.{name}")):
            if attribute == MAX_THREADS:
                x, y, z = struct.unpack("<III", value)
                threads = x * y * z
        shared = elf.size(f".nv.shared.{name}")
        if arch != "sm_80" and shared >= RESERVED_SHARED:
            shared -= RESERVED_SHARED  # newer architectures count the system's share
        opcodes = collections.Counter()
        for at in range(offset, offset + size, 16):
            word, = struct.unpack_from("<H", data, at)
            opcodes[OPCODES.get(word & 0x1FF, "other")] += 1
        yield Kernel(name, arch, by_symbol[name][REGISTER_COUNT], shared,
                     by_symbol[name].get(FRAME_SIZE, 0), threads, opcodes)


def kernels_of_file(path):
    """All kernels for all architectures in an object or a cubin."""
    data = path.read_bytes()
    at, kernels = -1, []
    while (at := data.find(b"\x7fELF", at + 1)) >= 0:
        if len(data) >= at + 64 and struct.unpack_from("<H", data, at + 18)[0] == EM_CUDA:
            kernels += kernels_of_cubin(data[at:])
    return kernels


def demangle(names):
    """{mangled: name and template arguments, without namespaces of this project and parameters}"""
    names = sorted(set(names))
    text = subprocess.run(["c++filt"], input="\n".join(names), check=True, text=True,
                          capture_output=True).stdout
    return {name: readable(line) for name, line in zip(names, text.splitlines())}


def readable(demangled):
    text = demangled.replace("(anonymous namespace)::", "").replace("rodimus::", "")
    depth = 0
    for i, letter in enumerate(text):
        depth += (letter == "<") - (letter == ">")
        if letter == "(" and depth == 0:
            text = text[:i]
            break
    return re.sub(r"^void ", "", text)
