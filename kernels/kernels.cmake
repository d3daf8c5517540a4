# The kernels as nvcc compiles them, with the host side of the CUDA backend and of NCCL: target cudpo_cuda, where CUDPO_CUDA is on.
file(GLOB CUDPO_KERNELS CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/kernels/*.cu)
file(GLOB CUDPO_CUDA_HOST CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/backend/cuda/*.c ${CMAKE_SOURCE_DIR}/src/dist/nccl/*.c)
if(NOT CUDPO_CUDA)
  return()
endif()

# Those of the architectures that matter which this nvcc knows.
find_program(NVCC nvcc PATHS ENV CUDA_PATH /usr/local/cuda/bin PATH_SUFFIXES bin REQUIRED)
execute_process(COMMAND ${NVCC} --list-gpu-arch OUTPUT_VARIABLE known COMMAND_ERROR_IS_FATAL ANY)
set(architectures)
foreach(architecture 80 89 90 100 120)
  if(known MATCHES "compute_${architecture}\n")
    list(APPEND architectures ${architecture}-real)
  endif()
endforeach()
set(CMAKE_CUDA_ARCHITECTURES ${architectures} CACHE STRING "GPU architectures that the kernels are compiled for")
set(CMAKE_CUDA_COMPILER ${NVCC} CACHE FILEPATH "nvcc")
set(CMAKE_POSITION_INDEPENDENT_CODE ON) # of the rooms that the library takes in
enable_language(CXX)
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)

add_library(cudpo_cuda SHARED ${CUDPO_KERNELS} ${CUDPO_CUDA_HOST})
target_include_directories(cudpo_cuda PUBLIC ${CMAKE_SOURCE_DIR}/include ${CMAKE_SOURCE_DIR}/src ${CMAKE_SOURCE_DIR})
target_compile_features(cudpo_cuda PRIVATE cuda_std_17)
target_compile_options(cudpo_cuda PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:-lineinfo -Xptxas=-warn-spills,-v
                                          $<$<BOOL:${CUDPO_WERROR}>:-Werror=all-warnings>>)
target_link_libraries(cudpo_cuda PUBLIC cudpo_tensor CUDA::cudart_static CUDA::cublasLt Threads::Threads ${CMAKE_DL_LIBS})
set_target_properties(cudpo_cuda PROPERTIES CUDA_COMPILER_LAUNCHER ${CMAKE_SOURCE_DIR}/kernels/keep_report.sh)
