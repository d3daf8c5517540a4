# Runs of several ranks as launchers start them; what they must come to is made first, without a launcher.
set(folder ${CMAKE_CURRENT_SOURCE_DIR}/launch)
set(runs ${CMAKE_CURRENT_BINARY_DIR}/launch)
add_test(NAME launch_reference COMMAND ${folder}/reference.sh ${CMAKE_SOURCE_DIR} $<TARGET_FILE:cudpo> ${runs})
set_tests_properties(launch_reference PROPERTIES LABELS "short;slurm" FIXTURES_SETUP launch TIMEOUT 400)
foreach(launcher cudpo mpirun torchrun)
  foreach(ranks 2 4)
    set(name launch_${launcher}_${ranks})
    # timeout's SIGTERM lets the script clean up behind itself, which ctest's SIGKILL would not.
    add_test(NAME ${name} COMMAND timeout --foreground -k 30 300 ${folder}/launcher.sh ${CMAKE_SOURCE_DIR} $<TARGET_FILE:cudpo>
                                  ${runs} ${CMAKE_CURRENT_BINARY_DIR}/${name} ${launcher} ${ranks})
    set_tests_properties(${name} PROPERTIES LABELS short FIXTURES_REQUIRED launch SKIP_RETURN_CODE 77 TIMEOUT 340)
  endforeach()
endforeach()
