#!/usr/bin/env python3
"""Checks the architecture: who includes whom, where vendor headers may appear, and file layout.

    scripts/check_includes.py [ROOT]       prints one line per violation; exit code 1 if there are any
    scripts/check_includes.py --self-test  plants each kind of violation and checks that it is found

Rules
  arrows    a folder includes only itself and the folders named for it in ARROWS.
  rooms     a folder in ROOMS, a room above its neighbours, is included only by those named there.
  path      a quoted include is the path from the root and names an existing file.
  vendor    a vendor header stays in its room (VENDOR), or in the tests of that room, where it is
            the independent truth.
  listed    every source file and every <stem>_test.py is named in a CMakeLists.txt, or found by a
            file(GLOB) in one, so none is silently left out.
  op        kernels/<op>.h comes with reference/<op>.h, tests/kernels/<op>_test.cpp, cpu/<op>.cpp (or several
            cpu/<op>_<part>.cpp), the same in cuda/ or cuda/<op>/, and autograd/<op>.cpp: one op has one stem on
            every level.
  test name sources under tests/ are <stem>_test.cpp, and <stem>_fuzz.cpp in tests/fuzz/; the
            helpers in tests/support/, tests/simt/ and tests/fakecuda/ may have any name.
  guard     a header starts with #pragma once.
  namespace a header in kernels/cpu/ or kernels/cuda/ declares in rodimus::cpu or rodimus::cuda (or below): one program
            contains both backends, and of two definitions of a name the linker would keep only one.
  one name  a type, a constant, or a function with given parameters is defined in only one header: if two define it,
            a program with both runs only one of them (check_odr.py asks the linker the same). Types in sources,
            outside anonymous namespaces, count too, except in tests.
  length    no code file is longer than MAX_LINES.
"""
import posixpath
import re
import sys
from pathlib import Path

MAX_LINES = 400
# tests/ and bench/ may include everything, and nothing includes them. An entry may also be a single file.
ARROWS = {
    "base": [],
    "kernels": ["base"],
    "autograd": ["base", "kernels"],
    # Layers say what is computed, autograd how: layers may use only basic types of kernels and what fills and
    # converts parameters, never an op.
    "layers": ["autograd", "base", "kernels/dry.h", "kernels/dtype.h", "kernels/exec.h", "kernels/memory.h", "kernels/convert.h",
               "kernels/philox.h"],
    "data": ["base"],
    "dist": ["autograd", "base", "kernels"],
    "checkpoints": ["dist", "layers", "autograd", "base", "kernels"],
    "interop": ["layers", "autograd", "base", "kernels/dtype.h", "kernels/convert.h", "kernels/memory.h"],
    "train": ["interop", "checkpoints", "dist", "data", "layers", "autograd", "base", "kernels"],
}
FREE = ("tests", "bench")
# Folder -> path prefixes that may include from it, besides FREE.
ROOMS = {
    "kernels/cpu/": ["kernels/cpu/", "train/peak.cpp"],
    "kernels/cuda/": ["kernels/cuda/", "dist/nccl"],
    "train/commands/": ["train/commands/", "train/main.cpp"],
    "train/report/": ["train/report/", "train/commands/"],
}
# Pattern of the header -> path prefixes that may include it.
VENDOR = [
    (r"mpi\.h", ["dist/", "tests/dist/", "tests/fakecuda/nccl"]),
    (r"H5\w*\.h|hdf5(_hl)?\.h", ["checkpoints/", "tests/checkpoints/", "tests/support/"]),
    (r"oneapi/.*|dnnl.*", ["kernels/cpu/"]),
    (r"sentencepiece.*", ["data/", "tests/data/"]),
    (r"archive(_entry)?\.h", ["data/", "tests/data/"]),
    (r"zlib\.h", ["data/"]),
    (r"xxh.*", ["base/"]),
    (r"nccl\.h", ["dist/nccl", "tests/fakecuda/"]),
    (r"cuda.*|cublas.*|curand.*|cub/.*|cooperative_groups.*|mma\.h|nv\w*/.*",
     ["kernels/cuda/", "dist/nccl", "tests/dist/nccl", "tests/simt/", "tests/fakecuda/"]),
    (r"[a-z]+intrin\.h|arm_neon\.h|arm_sve\.h", ["kernels/"]),
    (r"CLI/.*", ["train/commands/command", "tests/train/"]),  # slow to compile: command.h stands before it
    (r"toml\+\+/.*|toml\.hpp|toml\+\+\.h", ["train/config/", "tests/train/"]),
    (r"gtest/.*|gmock/.*", ["tests/"]),
    (r"benchmark/.*", ["bench/"]),
]
# Headers directly in kernels/ that are basic types or tools, not ops.
INFRASTRUCTURE = {"bad_input", "device", "dry", "dtype", "exec", "head_loss_blocks", "memory", "timeline"}
# Ops that are tested against a published table of known answers, not a specification of ours.
PUBLISHED = {"philox"}
# Ops that are never differentiated, and the one whose differentiable op has another name.
NO_GRADIENT = {"adamw", "convert", "philox", "reduce"}
DIFFERENTIABLE = {"gemm": "linear"}
HEADERS = {".h", ".cuh"}
SOURCES = {".cpp", ".cu"}
SCRIPTS = {".py", ".sh", ".cmake"}
CODE_FOLDERS = [*ARROWS, *FREE, "scripts", "cmake", ".ci"]

BACKENDS = ("cpu", "cuda")
NAMESPACE = re.compile(r"^namespace (rodimus[\w:]*)", re.M)
INCLUDE = re.compile(r'^\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)')


def code_files(root):
    for folder in CODE_FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            if path.is_file() and (path.suffix in HEADERS | SOURCES | SCRIPTS or
                                   path.name == "CMakeLists.txt" or folder == ".ci"):
                yield path.relative_to(root)


def includes(path):
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if match := INCLUDE.match(line):
            yield number, match[1], match[2]


def covers(allowed, target):
    """Whether `allowed`, a folder or one file, contains the header `target`."""
    return target == allowed or target.startswith(allowed + "/")


def check_include(root, file, number, quoted, angled):
    where = f"{file.as_posix()}:{number}"
    header = quoted or angled
    for pattern, rooms in VENDOR:
        if re.fullmatch(pattern, header) and not (quoted and (root / quoted).is_file()):
            if not file.as_posix().startswith(tuple(rooms)):
                yield f"{where}: vendor: <{header}> is for {', '.join(rooms)} only"
            return
    own = file.parts[0]
    if quoted and not (root / quoted).is_file():
        yield f'{where}: path: "{quoted}" is not the path of a file, seen from the root'
    elif angled and angled.split("/")[0] in ARROWS:
        yield f"{where}: path: <{angled}> is a file of the project, use quotes"
    elif quoted and own not in FREE:
        if quoted.startswith("kernels/reference/") and not file.as_posix().startswith(
                "kernels/reference/"):
            yield f'{where}: arrows: "{quoted}" is a specification, only for tests'
        elif not any(covers(allowed, quoted) for allowed in [own, *ARROWS.get(own, [])]):
            may = ", ".join(ARROWS.get(own, [])) or "nothing"
            yield f'{where}: arrows: {own} may include {may} (and itself), not "{quoted}"'
        for room, guests in ROOMS.items():
            if quoted.startswith(room) and not file.as_posix().startswith(tuple(guests)):
                yield f'{where}: rooms: "{quoted}" is for {", ".join(guests)} only'


def unrolled(text):
    """The text of a CMakeLists.txt with each `foreach(name a b)` replaced by its body for a, then b."""
    def unroll(match):
        name, *items = match[1].split()
        return "".join(match[2].replace("${" + name + "}", item) for item in items)
    return re.sub(r"\bforeach\s*\(([^)]*)\)(.*?)\bendforeach\s*\(\)", unroll, text, flags=re.S)


def listed_sources(root):
    """Every source and Python test named in a CMakeLists.txt, as a path from the root."""
    found = set()
    for lists in [root / "CMakeLists.txt", *root.glob("*/**/CMakeLists.txt")]:
        folder = lists.parent.relative_to(root)
        if folder.parts and folder.parts[0] not in CODE_FOLDERS:
            continue
        text = unrolled(re.sub(r"#.*", "", lists.read_text()))
        text = text.replace("${CMAKE_CURRENT_SOURCE_DIR}/", "")
        text = re.sub(r"\$\{(CMAKE|PROJECT)_SOURCE_DIR\}", "../" * len(folder.parts) + ".", text)
        for name in re.findall(r"[\w./-]+(?:\.cpp|\.cu|_test\.py)\b", text):
            found.add(posixpath.normpath((folder / name).as_posix()))
        for deep, patterns in re.findall(r"\bfile\s*\(\s*GLOB(_RECURSE)?\s+\w+([^)]*)\)", text):
            for pattern in patterns.replace("CONFIGURE_DEPENDS", "").split():
                pattern = posixpath.join(posixpath.dirname(pattern), "**", posixpath.basename(pattern)) if deep else pattern
                found |= {path.relative_to(root).as_posix() for path in (root / folder).glob(pattern)}
        for name in re.findall(r"\brodimus_fuzz\s*\(\s*(\w+)", text):
            found.add((folder / f"{name}.cpp").as_posix())
        for name in re.findall(r"\brodimus_\w*test\s*\(\s*([\w./-]+)", text):
            found.add(f"tests/{name}.cpp")
        for name in re.findall(r"\brodimus_bench\s*\(\s*([\w-]+)", text):
            found.add(f"bench/{name}.cpp")
    return found


def balanced(text, opening, closing):
    """`text` begins with `opening`; the length of the bracketed part."""
    depth = 0
    for at, letter in enumerate(text):
        depth += (letter == opening) - (letter == closing)
        if depth == 0:
            return at + 1
    return len(text)


def parameter_types(text):
    """`int a, const T* b = nullptr` -> ("int", "const T*")"""
    parts, depth, part = [], 0, ""
    for letter in text + ",":
        depth += (letter in "<({[") - (letter in ">)}]")
        if letter == "," and depth == 0:
            part = re.sub(r"\s*=.*", "", part.strip(), flags=re.S)
            parts.append(re.sub(r"(?<=[\w>*&\]])(\s|(?<=[*&>]))\s*\w+$", "", part))
            part = ""
        else:
            part += letter
    return tuple(" ".join(part.split()) for part in parts)


def declared(statement):
    """The name that a statement (up to its first brace or semicolon) defines, with parameters if it is a function;
    or None."""
    text = statement.strip()
    while text.startswith("template"):
        text = text[len("template"):].lstrip()
        text = text[balanced(text, "<", ">"):].lstrip()
    if match := re.match(r"(?:struct|class|union|enum(?: class| struct)?)\s+(?:alignas\(\w+\)\s+|\[\[\w+\]\]\s+)?"
                         r"(\w+(?:<.*?>)?)\s*(?:final\s*)?(?::[^:].*)?\{", text):
        return match[1]
    if match := re.match(r"using (\w+) =|(?:inline )?constexpr [^()]*?\b(\w+)(?:\[\w*\])* ?(?:=|\{)", text):
        return match[1] or match[2]
    if text.endswith("{") and not text.startswith("static ") and (match := re.search(r"(\w+|operator\W+)\(", text)):
        after = text[match.end() - 1:]
        return f"{match[1]}({', '.join(parameter_types(after[1:balanced(after, '(', ')') - 1]))})"
    return None


def definitions(text):
    """(qualified name, line) of what the file defines outside anonymous namespaces. Relies on clang-format, which
    starts namespace members at the beginning of a line."""
    scope, statement, begin = [], "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if match := re.match(r"(?:inline )?namespace ([\w:]*) ?\{", line):
            scope.append(match[1] or None)
        elif re.match(r"\}\s*(// namespace.*)?$", line) and not statement and scope and "namespace" in line:
            scope.pop()
        elif statement or re.match(r"[A-Za-z_\[]", line):
            begin = begin if statement else number
            statement += re.sub(r"//.*", "", line).strip() + " "
            if re.search(r"[{;]", statement):
                first = re.split(r"(?<=[{;])", statement)[0]
                if None not in scope and (name := declared(first)):
                    yield "::".join([*scope, name]), begin
                statement = ""


def check_names(root, files):
    places = {}
    for file in files:
        if file.suffix in HEADERS or (file.suffix in SOURCES and file.parts[0] != "tests"):
            for name, line in definitions((root / file).read_text()):
                if file.suffix in HEADERS or not name.endswith(")"):
                    places.setdefault(name, {}).setdefault(file.as_posix(), line)
    for name, where in places.items():
        (first, line), *others = where.items()
        for file, other in others:
            yield f"{file}:{other}: one name: {name} is also defined in {first}:{line}"


def check_op(name, stem, present):
    if stem in INFRASTRUCTURE:
        return
    for backend in BACKENDS:
        if not any(re.fullmatch(rf"kernels/{backend}/({stem}/)?{stem}(_\w+)?\.(cpp|cu)", path) for path in present):
            yield f"{name}: op: kernels/{backend}/{stem} is missing"
    if f"kernels/reference/{stem}.h" not in present and stem not in PUBLISHED:
        yield f"{name}: op: kernels/reference/{stem}.h is missing"
    op = DIFFERENTIABLE.get(stem, stem)
    if f"autograd/{op}.cpp" not in present and stem not in NO_GRADIENT:
        yield f"{name}: op: autograd/{op}.cpp is missing"
    if f"tests/kernels/{stem}_test.cpp" not in present:
        yield f"{name}: op: tests/kernels/{stem}_test.cpp is missing"


def check_layout(root, files):
    present = {file.as_posix() for file in files}
    listed = listed_sources(root)
    for file in files:
        name = file.as_posix()
        lines = (root / file).read_text().splitlines()
        if len(lines) > MAX_LINES:
            yield f"{name}: length: {len(lines)} lines, the limit is {MAX_LINES}"
        if file.suffix in HEADERS and "#pragma once" not in lines:
            yield f"{name}: guard: no #pragma once"
        if file.suffix in HEADERS and file.parts[0] == "kernels" and file.parts[1] in BACKENDS:
            own = f"rodimus::{file.parts[1]}"
            for namespace in NAMESPACE.findall("\n".join(lines)):
                if not f"{namespace}::".startswith(f"{own}::"):
                    yield f"{name}: namespace: declares in {namespace}, not in {own}"
        if (file.suffix in SOURCES or name.endswith("_test.py")) and name not in listed:
            yield f"{name}: listed: no CMakeLists.txt names it"
        if (file.suffix in SOURCES and file.parts[0] == "tests" and
                file.parts[1] not in ("support", "simt", "fakecuda")):
            ending = "_fuzz" if file.parts[1] == "fuzz" else "_test"
            if not file.stem.endswith(ending):
                yield f"{name}: test name: sources in this folder are <stem>{ending}.cpp"
        if len(file.parts) == 2 and file.parts[0] == "kernels" and file.suffix == ".h":
            yield from check_op(name, file.stem, present)


def check(root):
    files = list(code_files(root))
    problems = []
    for file in files:
        if file.suffix in HEADERS | SOURCES:
            for number, quoted, angled in includes(root / file):
                problems += check_include(root, file, number, quoted, angled)
    return problems + list(check_layout(root, files)) + list(check_names(root, files))


def main(arguments):
    if arguments == ["--self-test"]:
        from check_includes_plants import self_test
        return 0 if self_test(check) else 1
    if len(arguments) > 1 or any(argument.startswith("-") for argument in arguments):
        print(__doc__)
        return 2
    root = Path(arguments[0]) if arguments else Path(__file__).resolve().parent.parent
    problems = check(root)
    for problem in problems:
        print(problem)
    print(f"check_includes: {len(problems)} violations")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
