/* job_kubernetes.c - an Indexed Job: a pod for each node, with names that they find one another by. */
#include "launch/job.h"
#include "base/quote.h"

#include <string.h>

#define FOLDER "/etc/cudpo"       /* of the configuration, in a pod */
#define SECRET "/etc/cudpo-token" /* of the secret */

static cudpo_status write_head(buffer *b, const job *j)
{
    const cudpo_job *a = &j->ask;
    CUDPO_TRY(buffer_printf(b, "# %lld pod%s of %lld rank%s each.\n", (long long)a->nodes,
                            a->nodes == 1 ? "" : "s", (long long)a->ranks_per_node,
                            a->ranks_per_node == 1 ? "" : "s"));
    if (a->nodes > 1)
        CUDPO_TRY(buffer_printf(
            b,
            "# Once, before `kubectl apply -f` of this file: a secret without which no process can "
            "join the run:\n"
            "#   %s |\n"
            "#     kubectl create secret generic %s-token --from-file=token=/dev/stdin\n",
            job_make_secret, a->name));
    if (a->claim == NULL)
        CUDPO_TRY(buffer_printf(
            b, "# Model, data and output_dir are in the image, or on a volume of your own; "
               "--claim NAME mounts one.\n"));
    CUDPO_TRY(buffer_printf(b,
                            "apiVersion: v1\n"
                            "kind: ConfigMap\n"
                            "metadata:\n"
                            "  name: \"%s\"\n"
                            "data:\n"
                            "  config.json: ",
                            a->name));
    return quote_yaml_block(b, j->text, 4);
}

/* A headless service gives each pod a name: JOB-INDEX.JOB. */
static cudpo_status write_service(buffer *b, const cudpo_job *a)
{
    return buffer_printf(b,
                         "---\n"
                         "apiVersion: v1\n"
                         "kind: Service\n"
                         "metadata:\n"
                         "  name: \"%s\"\n"
                         "spec:\n"
                         "  clusterIP: None\n"
                         "  publishNotReadyAddresses: true\n"
                         "  selector:\n"
                         "    job-name: \"%s\"\n",
                         a->name, a->name);
}

static cudpo_status write_job(buffer *b, const cudpo_job *a)
{
    return buffer_printf(
        b,
        "---\n"
        "apiVersion: batch/v1\n"
        "kind: Job\n"
        "metadata:\n"
        "  name: \"%s\"\n"
        "spec:\n"
        "  completionMode: Indexed\n"
        "  completions: %lld\n"
        "  parallelism: %lld\n"
        "  # A pod that is lost ends all others, and each of them counts.\n"
        "  backoffLimit: %lld\n"
        "  podFailurePolicy:\n"
        "    rules:\n"
        "    # Evicted, or its node was drained or lost.\n"
        "    - action: Ignore\n"
        "      onPodConditions:\n"
        "      - type: DisruptionTarget\n"
        "    # 75: stopped and saved, goes on when started again.\n"
        "    - action: Ignore\n"
        "      onExitCodes:\n"
        "        containerName: cudpo\n"
        "        operator: In\n"
        "        values: [75]\n"
        "    # What another start would not change: command line, data, configuration, numbers.\n"
        "    - action: FailJob\n"
        "      onExitCodes:\n"
        "        containerName: cudpo\n"
        "        operator: In\n"
        "        values: [64, 65, 66, 78, 79]\n",
        a->name, (long long)a->nodes, (long long)a->nodes, (long long)(4 * a->nodes));
}

/* Each argument on a line of its own; `cudpo launch` starts the ranks of a pod. */
static cudpo_status write_command(buffer *b, const job *j)
{
    const cudpo_job *a = &j->ask;
    CUDPO_TRY(buffer_printf(b, "        command:\n        - "));
    CUDPO_TRY(quote_yaml_argument(b, a->program));
    CUDPO_TRY(buffer_printf(b,
                            "\n"
                            "        - launch\n"
                            "        - --nproc=%lld\n",
                            (long long)a->ranks_per_node));
    if (a->nodes > 1)
        CUDPO_TRY(buffer_printf(b,
                                "        - --nnodes=%lld\n"
                                "        - --node_rank=$(JOB_COMPLETION_INDEX)\n"
                                "        - --rdzv_endpoint=%s-0.%s:%d\n"
                                "        - --rdzv_id=$(JOB_UID)\n"
                                "        - --rdzv_token_file=" SECRET "/token\n",
                                (long long)a->nodes, a->name, a->name, JOB_PORT));
    CUDPO_TRY(buffer_printf(b, "        - --\n"
                               "        - train\n"
                               "        - " FOLDER "/config.json\n"));
    for (const char *const *argument = a->arguments; *argument != NULL; argument++) {
        CUDPO_TRY(buffer_printf(b, "        - "));
        CUDPO_TRY(quote_yaml_argument(b, *argument));
        CUDPO_TRY(buffer_printf(b, "\n"));
    }
    return j->resumes
               ? CUDPO_OK
               : buffer_printf(b, "        - --resume_from_checkpoint\n        - \"true\"\n");
}

static cudpo_status write_container(buffer *b, const job *j)
{
    const cudpo_job *a = &j->ask;
    CUDPO_TRY(buffer_printf(b,
                            "  template:\n"
                            "    spec:\n"
                            "      restartPolicy: Never\n"
                            "      # Time to save in when a pod is to go.\n"
                            "      terminationGracePeriodSeconds: %d\n",
                            JOB_SAVE_SECONDS));
    if (a->nodes > 1) CUDPO_TRY(buffer_printf(b, "      subdomain: \"%s\"\n", a->name));
    CUDPO_TRY(buffer_printf(b, "      containers:\n"
                               "      - name: cudpo\n"
                               "        image: "));
    CUDPO_TRY(quote_yaml(b, a->image));
    CUDPO_TRY(buffer_printf(b, "\n"));
    if (a->claim != NULL) CUDPO_TRY(buffer_printf(b, "        workingDir: /work\n"));
    CUDPO_TRY(write_command(b, j));
    CUDPO_TRY(buffer_printf(b,
                            "        env:\n"
                            "        - name: JOB_UID\n"
                            "          valueFrom:\n"
                            "            fieldRef:\n"
                            "              fieldPath: metadata.labels['controller-uid']\n"
                            "        - name: OMP_NUM_THREADS\n"
                            "          value: \"%lld\"\n"
                            "        resources:\n"
                            "          requests:\n"
                            "            cpu: \"%lld\"\n",
                            (long long)a->cpus_per_rank,
                            (long long)(a->cpus_per_rank * a->ranks_per_node)));
    if (a->gpus_per_node > 0)
        CUDPO_TRY(buffer_printf(b,
                                "          limits:\n"
                                "            nvidia.com/gpu: %lld\n",
                                (long long)a->gpus_per_node));
    return CUDPO_OK;
}

static cudpo_status write_volumes(buffer *b, const cudpo_job *a)
{
    CUDPO_TRY(buffer_printf(b, "        volumeMounts:\n"
                               "        - name: config\n"
                               "          mountPath: " FOLDER "\n"
                               "        - name: shm\n"
                               "          mountPath: /dev/shm\n"));
    if (a->nodes > 1)
        CUDPO_TRY(buffer_printf(b, "        - name: token\n"
                                   "          mountPath: " SECRET "\n"));
    if (a->claim != NULL)
        CUDPO_TRY(buffer_printf(b, "        - name: work\n"
                                   "          mountPath: /work\n"));
    CUDPO_TRY(buffer_printf(
        b,
        "      volumes:\n"
        "      - name: config\n"
        "        configMap:\n"
        "          name: \"%s\"\n"
        "      # NCCL's ranks of a node meet in shared memory; the default is 64 MB.\n"
        "      - name: shm\n"
        "        emptyDir:\n"
        "          medium: Memory\n",
        a->name));
    if (a->nodes > 1)
        CUDPO_TRY(buffer_printf(
            b,
            "      - name: token\n"
            "        secret:\n"
            "          secretName: \"%s-token\"\n"
            "          defaultMode: 292 # 0444: whoever the image runs as; this pod alone has it\n",
            a->name));
    if (a->claim != NULL)
        CUDPO_TRY(buffer_printf(b,
                                "      - name: work\n"
                                "        persistentVolumeClaim:\n"
                                "          claimName: \"%s\"\n",
                                a->claim));
    return CUDPO_OK;
}

cudpo_status job_kubernetes(buffer *b, const job *j)
{
    CUDPO_TRY(write_head(b, j));
    if (j->ask.nodes > 1) CUDPO_TRY(write_service(b, &j->ask));
    CUDPO_TRY(write_job(b, &j->ask));
    CUDPO_TRY(write_container(b, j));
    return write_volumes(b, &j->ask);
}
