# The real kernels on the host: tests/simt/README.md.  A test whose third line is
#   /* backends: cpu cuda */
# is built again as <name>_simt (and <name>_race, under the race and initialisation checker) with the CUDA backend on the
# emulator in place of the CPU's, and as <name>_gpu where there is nvcc.
enable_language(CXX)
set(simt ${CMAKE_CURRENT_SOURCE_DIR}/simt)
set(SIMT_SCHEDULES fwd rev rand:1 rand:2)

# What kernels are compiled with for the host.  No contraction: the same bits from every compiler and option.
add_library(simt_options INTERFACE)
target_compile_features(simt_options INTERFACE cxx_std_17)
target_compile_options(simt_options INTERFACE -g -ffp-contract=off -fno-strict-aliasing -Wall -Wextra -Wno-unknown-pragmas
                       $<$<COMPILE_LANG_AND_ID:CXX,Clang>:-Wno-pass-failed> $<$<BOOL:${CUDPO_WERROR}>:-Werror>)
target_include_directories(simt_options INTERFACE ${simt} ${simt}/cuda ${CMAKE_SOURCE_DIR} ${CMAKE_SOURCE_DIR}/kernels
                           ${CMAKE_CURRENT_SOURCE_DIR} ${CMAKE_SOURCE_DIR}/include
                           ${CMAKE_SOURCE_DIR}/src)
set_source_files_properties(${CUDPO_KERNELS} TARGET_DIRECTORY cudpo_base PROPERTIES LANGUAGE CXX)

# simt_<variant>: kernels, host side of the backend, runtime.
function(simt_library variant)
  set(sources)
  foreach(kernel ${CUDPO_KERNELS} ${CMAKE_CURRENT_SOURCE_DIR}/ptx/ptx.cu)
    get_filename_component(stem ${kernel} NAME_WE)
    # A wrapper per kernel, because a .cu file that nvcc compiles too can't be of another language here.
    set(wrapper ${CMAKE_CURRENT_BINARY_DIR}/simt/${stem}.cpp)
    file(CONFIGURE OUTPUT ${wrapper} CONTENT "#include \"${kernel}\"\n")
    list(APPEND sources ${wrapper})
  endforeach()
  # Object libraries: nothing of the runtime may be left out because no one names it (weak hooks, __tsan_*).
  add_library(simt_kernels_${variant} OBJECT ${sources})
  target_link_libraries(simt_kernels_${variant} PRIVATE simt_options)
  target_compile_options(simt_kernels_${variant} PRIVATE ${ARGN})
  add_library(simt_${variant} OBJECT ${CUDPO_CUDA_HOST} ${simt}/simt.cpp)
  target_include_directories(simt_${variant} PRIVATE ${simt} ${simt}/cuda)
  target_link_libraries(simt_${variant} PUBLIC cudpo_options cudpo_backend)
  target_compile_features(simt_${variant} PRIVATE cxx_std_17)
endfunction()

if(CUDPO_SANITIZE)
  simt_library(simt -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
else()
  simt_library(simt -O2)
  simt_library(race -O1 -fsanitize=thread)
  target_sources(simt_race PRIVATE ${simt}/simt_race.cpp)
endif()
find_package(OpenMP REQUIRED COMPONENTS CXX)
target_link_libraries(simt_simt PUBLIC OpenMP::OpenMP_CXX)

# <name>_<variant> of a test's source.
function(simt_program name variant)
  set(program ${name}_${variant})
  add_executable(${program} ${name}.c)
  target_compile_definitions(${program} PRIVATE TEST_CUDA)
  target_link_libraries(${program} PRIVATE cudpo_options PkgConfig::CMOCKA cudpo_base simt_${variant} simt_kernels_${variant})
  set_target_properties(${program} PROPERTIES LINKER_LANGUAGE CXX)
endfunction()

function(simt_test name program label environment)
  add_test(NAME ${name} COMMAND ${program} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(${name} PROPERTIES LABELS "${label}" SKIP_RETURN_CODE 77 TIMEOUT 600 ENVIRONMENT "${environment}")
endfunction()

foreach(name ${cuda_tests})
  simt_program(${name} simt)
  foreach(schedule ${SIMT_SCHEDULES})
    string(REPLACE ":" "" suffix ${schedule})
    simt_test(${name}_simt_${suffix} ${name}_simt "short;simt" "SIMT_SCHED=${schedule}")
  endforeach()
  if(TARGET simt_race)
    simt_program(${name} race)
    simt_test(${name}_race ${name}_race "short;simt" "")
  endif()
endforeach()
