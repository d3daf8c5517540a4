# The real kernels on the host: tests/simt/README.md.  A test whose third line is
#   /* backends: cpu cuda */
# is built again as <name>_simt (and <name>_race, under the race and initialisation checker) with the CUDA backend on the
# emulator in place of the CPU's.
enable_language(CXX)
find_package(OpenMP REQUIRED COMPONENTS CXX)
set(simt ${CMAKE_CURRENT_SOURCE_DIR}/simt)
if(CUDPO_SANITIZE)
  set(SIMT_SCHEDULES rand:1) # it costs four times as much
else()
  set(SIMT_SCHEDULES fwd rev rand:1)
endif()

# What kernels are compiled with for the host.  No contraction: the same bits from every compiler and option.
add_library(simt_options INTERFACE)
target_compile_features(simt_options INTERFACE cxx_std_17)
target_compile_options(simt_options INTERFACE -g1 -ffp-contract=off -fno-strict-aliasing -Wall -Wextra -Wno-unknown-pragmas
                       $<$<COMPILE_LANG_AND_ID:CXX,Clang>:-Wno-pass-failed> $<$<BOOL:${CUDPO_WERROR}>:-Werror>)
target_include_directories(simt_options INTERFACE ${simt} ${simt}/cuda ${CMAKE_SOURCE_DIR} ${CMAKE_SOURCE_DIR}/kernels
                           ${CMAKE_CURRENT_SOURCE_DIR} ${CMAKE_SOURCE_DIR}/include
                           ${CMAKE_SOURCE_DIR}/src)

# A library of .cu files as device code.  A wrapper for each, because one that nvcc compiles too can't be of another
# language here; `folder` is where the wrappers are.
function(simt_device_library name folder variant)
  set(wrappers)
  foreach(source ${ARGN})
    get_filename_component(stem ${source} NAME_WE)
    set(wrapper ${CMAKE_CURRENT_BINARY_DIR}/${folder}/${stem}.cpp)
    file(CONFIGURE OUTPUT ${wrapper} CONTENT "#include \"${source}\"\n")
    list(APPEND wrappers ${wrapper})
  endforeach()
  add_library(${name} OBJECT ${wrappers})
  target_link_libraries(${name} PRIVATE simt_options)
  target_compile_options(${name} PRIVATE ${SIMT_DEVICE_${variant}})
endfunction()

# Of a variant: simt_emulator_, simt_kernels_, and simt_, the host side of the CUDA backend.  Its options are those of
# device code.
file(GLOB simt_race_sources CONFIGURE_DEPENDS ${simt}/race*.cpp)
file(GLOB simt_sources CONFIGURE_DEPENDS ${simt}/*.cpp)
list(REMOVE_ITEM simt_sources ${simt_race_sources})
function(simt_emulator variant)
  add_library(simt_emulator_${variant} OBJECT ${simt_sources})
  target_include_directories(simt_emulator_${variant} PRIVATE ${simt} ${simt}/cuda)
  target_link_libraries(simt_emulator_${variant} PUBLIC cudpo_options PkgConfig::BLAS)
  # Symbols for gdb, as in the kernels; the race checker's build knows no #pragma omp.
  target_compile_options(simt_emulator_${variant} PRIVATE $<$<NOT:$<CONFIG:Debug>>:-O3> -g1 -Wall -Wextra -Wshadow -Wno-unknown-pragmas
                         $<$<BOOL:${CUDPO_WERROR}>:-Werror>)
  target_compile_features(simt_emulator_${variant} PRIVATE cxx_std_17)
endfunction()
function(simt_library variant)
  set(SIMT_DEVICE_${variant} ${ARGN})
  set(SIMT_DEVICE_${variant} ${ARGN} PARENT_SCOPE)
  simt_device_library(simt_kernels_${variant} simt ${variant} ${CUDPO_KERNELS} ${CMAKE_CURRENT_SOURCE_DIR}/ptx/ptx.cu
                      ${simt}/attention_sm100.cu)
  simt_emulator(${variant})
  add_library(simt_${variant} OBJECT ${CUDPO_CUDA_HOST})
  target_include_directories(simt_${variant} PRIVATE ${simt}/cuda)
  target_link_libraries(simt_${variant} PUBLIC cudpo_options cudpo_backend Threads::Threads)
endfunction()

set(SIMT_VARIANTS simt)
if(CUDPO_SANITIZE)
  simt_library(simt -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
else()
  simt_library(simt $<IF:$<CONFIG:Debug>,-O0,-O2>)
endif()
if(CUDPO_RACE AND NOT CUDPO_SANITIZE)
  list(APPEND SIMT_VARIANTS race)
  # For the compiler's calls before each access: libtsan, which knows nothing of CUDA's threads, is not linked.  Vectors
  # stay whole, so that there is one call for 16 bytes and not four.
  simt_library(race -O1 -fsanitize=thread $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-fno-tree-sra>)
  target_sources(simt_emulator_race PRIVATE ${simt_race_sources})
  target_compile_definitions(simt_emulator_race PRIVATE SIMT_RACE)
endif()
# Blocks run on all cores, but for the race checker, which wants them one after another.
target_link_libraries(simt_emulator_simt PUBLIC OpenMP::OpenMP_CXX)

# <name>_<variant> of a test's source.
function(simt_program name variant)
  set(program ${name}_${variant})
  add_executable(${program} ${name}.c)
  target_compile_definitions(${program} PRIVATE TEST_CUDA $<$<STREQUAL:${variant},race>:TEST_RACE>)
  target_include_directories(${program} PRIVATE ${simt}/cuda) # not those of a toolkit that is installed
  target_link_libraries(${program} PRIVATE cudpo_options PkgConfig::CMOCKA cudpo_base simt_${variant} simt_kernels_${variant}
                        simt_emulator_${variant})
  set_target_properties(${program} PROPERTIES LINKER_LANGUAGE CXX)
endfunction()

# <name>_<variant> of .cu files, compiled as device code, and .cpp files.
function(simt_device_program name variant)
  set(program ${name}_${variant})
  set(device ${ARGN})
  set(host ${ARGN})
  list(FILTER device INCLUDE REGEX "\\.cu$")
  list(FILTER host EXCLUDE REGEX "\\.cu$")
  simt_device_library(${program}_device ${name} ${variant} ${device})
  add_executable(${program} ${host})
  target_compile_features(${program} PRIVATE cxx_std_17)
  target_link_libraries(${program} PRIVATE cudpo_options ${program}_device simt_emulator_${variant})
  set_target_properties(${program} PROPERTIES LINKER_LANGUAGE CXX)
endfunction()

function(simt_test name program label environment)
  add_test(NAME ${name} COMMAND ${program} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  # One OS thread a program: ctest runs several at a time.
  set_tests_properties(${name} PROPERTIES LABELS "${label}" TIMEOUT 600
                       ENVIRONMENT "OMP_NUM_THREADS=1;${environment}")
endfunction()

# The ctests of a program: one for each schedule; the race checker finds the same in any of them.
set(simt_without_kernels test_gemm) # products are cuBLASLt's: nothing is scheduled, nothing races
function(simt_tests name variant)
  if(variant STREQUAL race)
    simt_test(${name}_race ${name}_race "short;simt" "")
    return()
  endif()
  if(name IN_LIST simt_without_kernels)
    list(GET SIMT_SCHEDULES 0 SIMT_SCHEDULES)
  endif()
  foreach(schedule ${SIMT_SCHEDULES})
    string(REPLACE ":" "" suffix ${schedule})
    simt_test(${name}_${variant}_${suffix} ${name}_${variant} "short;simt" "SIMT_SCHED=${schedule}")
  endforeach()
endfunction()

foreach(name ${cuda_tests})
  foreach(variant ${SIMT_VARIANTS})
    if(variant STREQUAL race AND name IN_LIST simt_without_kernels)
      continue()
    endif()
    simt_program(${name} ${variant})
    simt_tests(${name} ${variant})
  endforeach()
endforeach()

# The CUDA backend on the emulator as the plugin that the program opens, with $CUDPO_PLUGIN.  threadIdx costs no call there: each
# step of a fiber is some dozen instructions.
foreach(part simt_simt simt_kernels_simt simt_emulator_simt)
  set_target_properties(${part} PROPERTIES POSITION_INDEPENDENT_CODE ON)
  target_compile_options(${part} PRIVATE -ftls-model=initial-exec -fno-semantic-interposition)
endforeach()
add_library(cudpo_cuda_emulated SHARED)
target_link_libraries(cudpo_cuda_emulated PRIVATE cudpo_base cudpo_tensor simt_simt simt_kernels_simt simt_emulator_simt)
set_target_properties(cudpo_cuda_emulated PROPERTIES LINKER_LANGUAGE CXX)
# NCCL on the emulated streams: the library that the plugin opens, with $CUDPO_NCCL.
file(GLOB simt_nccl_sources CONFIGURE_DEPENDS ${simt}/nccl/*.cpp)
add_library(cudpo_nccl_emulated SHARED ${simt_nccl_sources})
target_include_directories(cudpo_nccl_emulated PRIVATE ${simt} ${simt}/cuda)
target_compile_options(cudpo_nccl_emulated PRIVATE -g1 -Wall -Wextra -Wshadow $<$<BOOL:${CUDPO_WERROR}>:-Werror>)
target_compile_features(cudpo_nccl_emulated PRIVATE cxx_std_17)
target_link_libraries(cudpo_nccl_emulated PRIVATE cudpo_options cudpo_cuda_emulated)
# The leak checker of gcc 12 looks for the thread-local variables of an opened library by what lies before them in memory, which
# at times is not glibc's, and dies of it: it is to look for none.
set(emulated "CUDPO_PROGRAM=$<TARGET_FILE:cudpo>;CUDPO_PLUGIN=$<TARGET_FILE:cudpo_cuda_emulated>;CUDPO_NCCL=$<TARGET_FILE:cudpo_nccl_emulated>;OMP_NUM_THREADS=1;ASAN_OPTIONS=intercept_tls_get_addr=0")
foreach(name ${plugin_tests})
  add_dependencies(${name} cudpo_cuda_emulated cudpo_nccl_emulated)
  # Under ASan a part of it is enough: each step costs four times as much.
  set_tests_properties(${name} PROPERTIES LABELS "short;simt;cuda-emulated" ENVIRONMENT
    "${emulated};$<$<BOOL:${CUDPO_SANITIZE}>:CUDPO_TEST_PART=1>")
endforeach()

# Every single call fails once: the long tier.
add_test(NAME test_cuda_faults_all COMMAND test_cuda_faults WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
set_tests_properties(test_cuda_faults_all PROPERTIES LABELS long TIMEOUT 14400 ENVIRONMENT
  "${emulated};CUDPO_EVERY_CALL=1")

# Every call of NCCL with every result.
add_test(NAME test_nccl_faults_all COMMAND test_nccl_faults WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
set_tests_properties(test_nccl_faults_all PROPERTIES LABELS long TIMEOUT 1800 ENVIRONMENT
  "${emulated};CUDPO_EVERY_CALL=1")

# Tests of both backends, on the emulated one.  Of TRL's runs one of each loss and mode of the reference; the long tier has
# all of them.
if(NOT CUDPO_SANITIZE)
  set(on_cuda "CUDPO_DEVICE=cuda;${emulated}")
  set(test_golden_runs_arguments arch_qwen3 kto loss_hinge loss_ipo loss_sft orpo precompute)
  foreach(name ${both_tests})
    add_dependencies(${name} cudpo_cuda_emulated)
    add_test(NAME ${name}_cuda COMMAND ${name} ${${name}_arguments} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
    set_tests_properties(${name}_cuda PROPERTIES LABELS "short;simt;cuda-emulated" TIMEOUT 600 ENVIRONMENT "${on_cuda}")
  endforeach()
  add_test(NAME test_golden_runs_cuda_all COMMAND test_golden_runs WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(test_golden_runs_cuda_all PROPERTIES LABELS long TIMEOUT 7200 ENVIRONMENT "${on_cuda}")
endif()

# The emulator itself: that it computes what CUDA does, and that it catches what CUDA forbids; also with the fibers of the C
# library, which other processors than x86-64 have.
if(NOT CUDPO_SANITIZE)
  set(SIMT_DEVICE_ucontext -O1 -DSIMT_UCONTEXT)
  simt_emulator(ucontext)
  target_compile_definitions(simt_emulator_ucontext PUBLIC SIMT_UCONTEXT)
  simt_device_program(test_simt ucontext ${CMAKE_CURRENT_SOURCE_DIR}/test_simt.cu)
  simt_test(test_simt_ucontext test_simt_ucontext "short;simt" "")
endif()
file(GLOB simt_bugs CONFIGURE_DEPENDS ${simt}/bugs/*.cu ${simt}/bugs/*.cpp)
foreach(variant ${SIMT_VARIANTS})
  simt_device_program(test_simt ${variant} ${CMAKE_CURRENT_SOURCE_DIR}/test_simt.cu)
  simt_tests(test_simt ${variant})
  simt_device_program(simt_bugs ${variant} ${simt_bugs})
  target_include_directories(simt_bugs_${variant} PRIVATE ${simt} ${simt}/cuda)
  simt_test(simt_bugs_${variant} simt_bugs_${variant} "short;simt" "")
  simt_device_program(simt_bench ${variant} ${simt}/bench.cu)
  set_target_properties(simt_bench_${variant} simt_bench_${variant}_device PROPERTIES EXCLUDE_FROM_ALL ON)
endforeach()
if(TARGET simt_bugs_race)
  target_compile_definitions(simt_bugs_race PRIVATE SIMT_RACE)
endif()

add_test(NAME dialect COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/check_kernels.sh ${CMAKE_SOURCE_DIR})
set_tests_properties(dialect PROPERTIES LABELS short)
