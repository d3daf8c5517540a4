# Scenarios on a real Slurm, which up.sh starts and down.sh ends: tests/slurm/scenarios/<name>.sh is the ctest slurm_<name>.
# Label slurm.  Where there is no Slurm, or no root, all of them are skipped.
set(folder ${CMAKE_CURRENT_SOURCE_DIR}/slurm)
set(cluster ${CMAKE_CURRENT_BINARY_DIR}/slurm)
add_test(NAME slurm_up COMMAND ${folder}/up.sh ${cluster})
add_test(NAME slurm_down COMMAND ${folder}/down.sh ${cluster})
set_tests_properties(slurm_up PROPERTIES FIXTURES_SETUP slurm SKIP_RETURN_CODE 77)
set_tests_properties(slurm_down PROPERTIES FIXTURES_CLEANUP slurm)
set_tests_properties(slurm_up slurm_down PROPERTIES LABELS slurm TIMEOUT 100)

file(GLOB scenarios CONFIGURE_DEPENDS ${folder}/scenarios/*.sh)
foreach(scenario ${scenarios})
  get_filename_component(name ${scenario} NAME_WE)
  add_test(NAME slurm_${name} COMMAND timeout --foreground -k 30 300 ${folder}/run.sh ${CMAKE_SOURCE_DIR} $<TARGET_FILE:cudpo>
                                      ${runs} ${cluster} ${name}) # runs and timeout: launch.cmake
  set_tests_properties(slurm_${name} PROPERTIES LABELS slurm FIXTURES_REQUIRED "slurm;launch" SKIP_RETURN_CODE 77 TIMEOUT 340)
  if(name MATCHES "time_limit|lost_node")
    set_tests_properties(slurm_${name} PROPERTIES COST 100) # these wait for Slurm's clocks, so they begin first
  elseif(name MATCHES "preempted")
    set_tests_properties(slurm_${name} PROPERTIES RESOURCE_LOCK slurm_n2)
  endif()
endforeach()
