/* randomise.c - a model folder's first weights. */
#include "cudpo/model.h"
#include "base/file.h"
#include "model/weights.h"

#include <stdlib.h>

cudpo_status cudpo_model_randomise(const char *folder, uint64_t seed)
{
    CUDPO_REQUIRE(folder != NULL);
    model_config c;
    CUDPO_TRY(model_config_load(&c, folder));
    char *path = path_join(folder, "model.safetensors");
    if (path == NULL) return cudpo_fail(CUDPO_ENOMEM, folder, "path");
    model_weights w;
    cudpo_status status = model_weights_create(&w, backend_cpu(), &c, DTYPE_F32);
    if (status == CUDPO_OK) status = model_weights_randomise(&w, &c, seed);
    if (status == CUDPO_OK) status = model_weights_save(&w, path, c.torch_dtype);
    model_weights_destroy(&w);
    free(path);
    return status;
}
