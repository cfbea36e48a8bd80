# Finds the CUDA toolkit, and defines the two ways in which a kernel source (.cu) is compiled.
#
#   RODIMUS_CUDA = AUTO | ON | OFF | EMULATED
#     AUTO, the default: on if a CUDA toolkit (12.8 or later) and NCCL are found. EMULATED, for tests under
#     sanitizers and without optimisation: as ON, but every program is linked with the emulated kernels and
#     the fake runtime, and nvcc compiles nothing.
#
# Searches CUDAToolkit_ROOT, CUDA_HOME, nvcc on the PATH, .cuda/ in this folder (made by scripts/setup.sh --cuda,
# with NCCL) and /usr/local/cuda; for NCCL see FindNCCL.cmake. Sets
#   RODIMUS_HAS_CUDA        the program is built with the CUDA backend
#   RODIMUS_HAS_SIMT        the tests can compile kernels against the emulator (headers, Boost.Context)
#   RODIMUS_CUDA_INCLUDE    the toolkit's headers
#   RODIMUS_NVCC            the compiler
# and defines rodimus_cuda_sources, rodimus_cuda_resource_test, rodimus_simt_library and rodimus_simt_test.
set(RODIMUS_CUDA AUTO CACHE STRING "Build the CUDA backend: AUTO (when nvcc is found), ON, OFF or EMULATED")
set_property(CACHE RODIMUS_CUDA PROPERTY STRINGS AUTO ON OFF EMULATED)
if(NOT RODIMUS_CUDA MATCHES "^(AUTO|ON|OFF|EMULATED)$")
  message(FATAL_ERROR "RODIMUS_CUDA is '${RODIMUS_CUDA}', expected AUTO, ON, OFF or EMULATED")
endif()
# SASS for A100, H100 and B200, and PTX of the newest for later GPUs.
set(RODIMUS_CUDA_ARCHITECTURES "80-real;90-real;100" CACHE STRING "GPU architectures, as in CMAKE_CUDA_ARCHITECTURES")

set(RODIMUS_LAUNCHES ${CMAKE_BINARY_DIR}/launches.txt)  # what the kernels were launched with, by train/launch_test
set(RODIMUS_HAS_CUDA OFF)
set(RODIMUS_HAS_SIMT OFF)
if(RODIMUS_CUDA STREQUAL "OFF")
  message(STATUS "CUDA: off, as asked for (RODIMUS_CUDA=OFF)")
else()
  find_program(RODIMUS_NVCC nvcc
    HINTS ${CUDAToolkit_ROOT} ENV CUDAToolkit_ROOT ENV CUDA_HOME
    PATHS ${CMAKE_SOURCE_DIR}/.cuda /usr/local/cuda
    PATH_SUFFIXES bin
    DOC "The CUDA compiler")
  set(missing "")
  if(NOT RODIMUS_NVCC)
    set(missing "no CUDA toolkit was found (CUDAToolkit_ROOT, PATH, .cuda, /usr/local/cuda): set CUDAToolkit_ROOT, put \
nvcc on the PATH, or run scripts/setup.sh --cuda")
  else()
    # nvcc on the PATH may be a link from outside the toolkit, so ask the compiler.
    get_filename_component(cuda_root ${RODIMUS_NVCC} REALPATH)
    get_filename_component(cuda_root ${cuda_root} DIRECTORY)
    get_filename_component(cuda_root ${cuda_root} DIRECTORY)
    find_path(RODIMUS_CUDA_INCLUDE cuda_bf16.h
      HINTS ${cuda_root}/include ${cuda_root}/targets/x86_64-linux/include NO_DEFAULT_PATH
      DOC "The headers of the CUDA toolkit")
    set(CUDAToolkit_ROOT ${cuda_root})
    find_package(NCCL 2.13 QUIET)  # ncclGetLastError
    execute_process(COMMAND ${RODIMUS_NVCC} --version OUTPUT_VARIABLE nvcc_version)
    string(REGEX MATCH "release ([0-9.]+)" nvcc_version "${nvcc_version}")
    set(nvcc_version "${CMAKE_MATCH_1}")
    if(NOT RODIMUS_CUDA_INCLUDE)
      set(missing "${RODIMUS_NVCC} is there, but the headers of its toolkit (cuda_bf16.h) are not: install the whole toolkit")
    elseif(nvcc_version VERSION_LESS 12.8)  # C++20 since 12.0, sm_100 since 12.8
      set(missing "${RODIMUS_NVCC} is of CUDA ${nvcc_version}, need 12.8 or later: set CUDAToolkit_ROOT to a newer toolkit")
    elseif(NOT NCCL_FOUND)
      set(missing "NCCL 2.13 or later was not found: install libnccl-dev from NVIDIA's package repository, or its PyPI \
package for this toolkit (python3 -m pip install --target DIR nvidia-nccl-cu13; -DNCCL_ROOT=DIR/nvidia/nccl)")
    endif()
  endif()
  if(NOT missing)
    set(RODIMUS_HAS_CUDA ON)
    message(STATUS "CUDA: on, ${RODIMUS_NVCC}, for ${RODIMUS_CUDA_ARCHITECTURES}; NCCL ${NCCL_VERSION}, ${NCCL_LIBRARY}")
  elseif(RODIMUS_CUDA MATCHES "^(ON|EMULATED)$")
    message(FATAL_ERROR "RODIMUS_CUDA=${RODIMUS_CUDA}, but ${missing}")
  else()
    message(STATUS "CUDA: off, ${missing}")
  endif()
endif()

if(RODIMUS_HAS_CUDA)
  set(CMAKE_CUDA_COMPILER ${RODIMUS_NVCC})
  set(CMAKE_CUDA_ARCHITECTURES ${RODIMUS_CUDA_ARCHITECTURES})
  if(CCACHE)
    set(CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE})
  endif()
  enable_language(CUDA)
  # CMake 3.25 has no flags for CUDA_STANDARD 20, which targets inherit from CXX_STANDARD.
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
  find_package(CUDAToolkit REQUIRED)
  if(RODIMUS_BUILD_TESTS)
    find_package(Boost COMPONENTS context)
    if(Boost_context_FOUND)
      set(RODIMUS_HAS_SIMT ON)
    else()
      message(FATAL_ERROR "Boost.Context not found; the tests of the CUDA kernels need it: run scripts/setup.sh")
    endif()
  elseif(RODIMUS_CUDA STREQUAL "EMULATED")
    message(FATAL_ERROR "RODIMUS_CUDA=EMULATED needs RODIMUS_BUILD_TESTS=ON: the emulator is one of the tests' tools")
  endif()
endif()

# rodimus_cuda_sources(TARGET a.cu ...): adds kernel sources to a target, compiled by nvcc. A register spill gives a
# warning: it adds memory traffic to a kernel's inner loop that no count shows. With RODIMUS_WERROR (CI) it fails the
# build; not for users, whose version of ptxas may spill where ours does not.
set(RODIMUS_CUDA_GATES -Xptxas=--warn-on-spills,--warn-on-local-memory-usage)
set(RODIMUS_CUDA_GATES_STRICT ${RODIMUS_CUDA_GATES} -Werror=all-warnings)
function(rodimus_cuda_sources target)
  target_sources(${target} PRIVATE ${ARGN})
  set(gates ${RODIMUS_CUDA_GATES})
  if(RODIMUS_WERROR)
    set(gates ${RODIMUS_CUDA_GATES_STRICT})
  endif()
  set_property(SOURCE ${ARGN} APPEND PROPERTY COMPILE_OPTIONS ${gates} -lineinfo
    # nvcc passes this to a shell: the quotes protect spaces in the path.
    "-Xcompiler=-Wall,-Wextra,-fmacro-prefix-map='${CMAKE_SOURCE_DIR}/='"
    # The checks read the device code from the objects (tests/simt/sass.py).
    --no-compress)
  target_link_libraries(${target} PUBLIC CUDA::cudart_static)
endfunction()

# rodimus_cuda_resource_test(TARGET): tests that the kernels in TARGET use the resources listed in
# kernels/cuda/resources.toml, and no local memory. The sizes of launches come from train/launch_test, which ctest
# runs first. The target `update_resources` rewrites that table.
function(rodimus_cuda_resource_test target)
  set(list ${CMAKE_BINARY_DIR}/cuda_objects.txt)
  file(GENERATE OUTPUT ${list} CONTENT "$<JOIN:$<FILTER:$<TARGET_OBJECTS:${target}>,INCLUDE,[.]cu[.]o$>,\n>\n")
  set(check ${SYSTEM_PYTHON} ${CMAKE_SOURCE_DIR}/tests/simt/resources.py
    --table ${CMAKE_SOURCE_DIR}/kernels/cuda/resources.toml --objects ${list}
    --launches ${RODIMUS_LAUNCHES} --nvcc ${CMAKE_CUDA_COMPILER_VERSION})
  add_test(NAME simt/resources_test COMMAND ${check})
  set_tests_properties(simt/resources_test PROPERTIES FIXTURES_REQUIRED launches)
  add_custom_target(update_resources
    COMMAND ${CMAKE_COMMAND} -E env RODIMUS_LAUNCHES=${RODIMUS_LAUNCHES} $<TARGET_FILE:train_launch_test>
    COMMAND ${check} --update VERBATIM)
  add_dependencies(update_resources ${target} train_launch_test)
endfunction()

# rodimus_simt_library(NAME a.cu b.cpp ... LINK libraries...): compiles the kernel sources as C++ for the emulator,
# into two libraries: NAME, the fast one, and NAME_race, in which every load and store is checked and counted. Call
# it in a directory where nvcc does not compile the sources: in CMake the language of a source is a property of
# source and directory.
function(rodimus_simt_library name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "LINK")
  set(kernels ${arg_UNPARSED_ARGUMENTS})
  list(FILTER kernels INCLUDE REGEX "\\.cu$")
  set_source_files_properties(${kernels} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS "-x;c++")
  set(variants plain)
  if(NOT RODIMUS_SANITIZE)  # AddressSanitizer and the instrumentation of the race build exclude each other
    list(APPEND variants race)
  endif()
  foreach(variant ${variants})
    set(library ${name})
    if(variant STREQUAL race)
      set(library ${name}_race)
    endif()
    add_library(${library} STATIC ${arg_UNPARSED_ARGUMENTS})
    target_compile_definitions(${library} PRIVATE RODIMUS_SIMT)
    target_include_directories(${library} PRIVATE ${CMAKE_SOURCE_DIR}/tests)
    target_compile_options(${library} PRIVATE -Wno-unknown-pragmas)
    target_link_libraries(${library} PUBLIC rodimus_simt ${arg_LINK})
    if(variant STREQUAL race)
      target_compile_options(${library} PRIVATE -fsanitize=thread)  # the emulator acts as the run-time library
    endif()
  endforeach()
endfunction()

# rodimus_simt_test(kernels/norm_cuda_test LIBRARY [RACE_ONLY] [libraries...]): tests/kernels/norm_cuda_test.cpp
# linked with LIBRARY and again with LIBRARY_race, two ctest entries; the second ends in _race. RACE_ONLY: only the
# latter.
function(rodimus_simt_test path library)
  cmake_parse_arguments(PARSE_ARGV 2 arg "RACE_ONLY" "" "")
  string(REPLACE "/" "_" name ${path})
  set(suffixes "" _race)
  if(arg_RACE_ONLY)
    set(suffixes _race)
  endif()
  # Compiled once: the two builds differ only in the kernel library.
  add_library(${name}_objects OBJECT ${CMAKE_SOURCE_DIR}/tests/${path}.cpp)
  target_link_libraries(${name}_objects PRIVATE ${library} ${arg_UNPARSED_ARGUMENTS})
  rodimus_test_options(${name}_objects)
  foreach(suffix IN LISTS suffixes)
    if(TARGET ${library}${suffix})
      add_executable(${name}${suffix} $<TARGET_OBJECTS:${name}_objects>)
      target_link_libraries(${name}${suffix} PRIVATE rodimus_machine ${library}${suffix} rodimus_test_support
        GTest::gtest_main ${arg_UNPARSED_ARGUMENTS})
      add_test(NAME ${path}${suffix} COMMAND ${name}${suffix})
      set_tests_properties(${path}${suffix} PROPERTIES TIMEOUT 300)
    endif()
  endforeach()
endfunction()
