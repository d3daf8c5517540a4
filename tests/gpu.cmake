# The tests of the CUDA backend on a real GPU, ctest label gpu: preset cuda.  Where there is none they skip and say so.
add_library(gpu_ptx OBJECT ptx/ptx.cu)
target_include_directories(gpu_ptx PRIVATE ${CMAKE_SOURCE_DIR} ${CMAKE_SOURCE_DIR}/kernels ${CMAKE_SOURCE_DIR}/src
                           ${CMAKE_SOURCE_DIR}/include ${CMAKE_CURRENT_SOURCE_DIR})
target_compile_features(gpu_ptx PRIVATE cuda_std_17)

# Our declarations of NCCL, where NVIDIA's are at hand.
find_path(NCCL_HEADER nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
if(NCCL_HEADER)
  add_library(gpu_nccl_header OBJECT nccl_header.c)
  target_include_directories(gpu_nccl_header SYSTEM PRIVATE ${NCCL_HEADER} ${CUDAToolkit_INCLUDE_DIRS})
  target_link_libraries(gpu_nccl_header PRIVATE cudpo_options)
  add_dependencies(cuda gpu_nccl_header)
endif()

foreach(name ${cuda_tests})
  add_executable(${name}_gpu ${name}.c)
  target_compile_definitions(${name}_gpu PRIVATE TEST_CUDA TEST_GPU)
  target_link_libraries(${name}_gpu PRIVATE cudpo_options PkgConfig::CMOCKA cudpo_base cudpo_backend cudpo_cuda)
  set_target_properties(${name}_gpu PROPERTIES LINKER_LANGUAGE CXX)
  add_test(NAME ${name}_gpu COMMAND ${name}_gpu WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(${name}_gpu PROPERTIES LABELS gpu SKIP_RETURN_CODE 77 TIMEOUT 600)
endforeach()
target_link_libraries(test_ptx_gpu PRIVATE gpu_ptx)

foreach(name ${plugin_tests})
  set_tests_properties(${name} PROPERTIES LABELS gpu ENVIRONMENT
                       "CUDPO_PROGRAM=$<TARGET_FILE:cudpo>;CUDPO_PLUGIN=$<TARGET_FILE:cudpo_cuda>")
endforeach()

# It reads how much memory is left, which others take, and trains models of real sizes.
set_tests_properties(test_cuda_large PROPERTIES RUN_SERIAL ON TIMEOUT 1800)

foreach(tool memcheck racecheck initcheck synccheck)
  add_test(NAME train_${tool} COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/check_memory.sh ${tool} $<TARGET_FILE:cudpo> ${CMAKE_BINARY_DIR})
  set_tests_properties(train_${tool} PROPERTIES LABELS gpu SKIP_RETURN_CODE 77 TIMEOUT 600 ENVIRONMENT
                       "CUDPO_PLUGIN=$<TARGET_FILE:cudpo_cuda>")
endforeach()

# The cases of every op under the tools, too.
foreach(name ${cuda_tests})
  foreach(tool memcheck racecheck initcheck synccheck)
    add_test(NAME ${name}_${tool} COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/check_memory.sh ${tool} $<TARGET_FILE:${name}_gpu>
             WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
    set_tests_properties(${name}_${tool} PROPERTIES LABELS gpu SKIP_RETURN_CODE 77 TIMEOUT 1800)
  endforeach()
endforeach()

foreach(name ${both_tests})
  add_test(NAME ${name}_cuda COMMAND ${name} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(${name}_cuda PROPERTIES LABELS gpu SKIP_RETURN_CODE 77 TIMEOUT 600 ENVIRONMENT
                       "CUDPO_DEVICE=cuda;CUDPO_PROGRAM=$<TARGET_FILE:cudpo>;CUDPO_PLUGIN=$<TARGET_FILE:cudpo_cuda>")
  add_dependencies(cuda ${name})
endforeach()

foreach(name ${cuda_tests})
  add_dependencies(cuda ${name}_gpu)
endforeach()
add_dependencies(cuda ${plugin_tests})

add_test(NAME kernel_resources
         COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/check_resources.sh ${CMAKE_BINARY_DIR}/CMakeFiles/cudpo_cuda.dir
                 ${CMAKE_CURRENT_SOURCE_DIR}/kernel_resources.txt)
set_tests_properties(kernel_resources PROPERTIES LABELS nvcc)
