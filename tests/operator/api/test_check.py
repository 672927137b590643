"""Checks of a job that need its experiment: sizes, options, numbers of GPUs."""

import pytest
from support.jobs import make_job

from cosmos_operator.api.check import num_data_groups, resolve_experiment
from cosmos_operator.errors import InvalidSpec
from cosmos_worker.config.presets import PRESETS, Preset


def test_fields_of_the_job_reach_the_experiment():
    job = make_job(
        {
            "training.seed": 7,
            "training.overrides": ["optimizer.learning_rate=1e-4", "trainer.micro_batch_size=4"],
            "checkpoints": {"everySteps": 10, "keepLast": 3},
            "embeddings.maxLength": 24,
        }
    )

    experiment = resolve_experiment(job)

    trainer = experiment.trainer
    assert (trainer.max_steps, trainer.seed, trainer.save_every_steps, trainer.keep_last) == (
        40,
        7,
        10,
        3,
    )
    assert (trainer.device, trainer.micro_batch_size) == ("cpu", 4)
    assert experiment.optimizer.learning_rate == 1e-4
    assert experiment.text.max_length == 24


def test_device_follows_the_gpus():
    job = make_job({"compute": {"gpusPerNode": 2}})

    assert resolve_experiment(job).trainer.device == "cuda"
    assert job.spec.compute.num_processes_per_node == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training.experiment": "push_tiny"}, r"spec\.training\.experiment: got 'push_tiny'; did you mean"),
        (
            {"training.overrides": ["trainer.max_steps=9"]},
            r"spec\.training\.overrides\[0\]: got 'trainer\.max_steps=9'; use spec\.training\.steps instead",
        ),
        (
            {"training.overrides": ["text.dropout=0", "optimiser.eps=1"]},
            r"spec\.training\.overrides\[1\]: .*did you mean 'optimizer\.eps'",
        ),
        ({"training.overrides": ["text.dropout=2"]}, r"spec\.training\.overrides\[0\]: text\.dropout: .*\(got 2\)"),
        (
            {"training.overrides": ["text.dropout=0", "trainer.global_batch_size=9"]},
            r"spec\.training\.overrides\[1\]: trainer\.global_batch_size: 9 is not a multiple of",
        ),
        ({"training.overrides": ["nonsense"]}, r"overrides\[0\]: .*use KEY=VALUE without spaces"),
        (
            {"compute.processesPerNode": 3},
            r"spec\.compute: 1 node x 3 processes x micro-batch 8 = 24 samples do not divide the global "
            r"batch of 16; override trainer\.global_batch_size with a multiple of 24",
        ),
        (
            {"training.overrides": ["parallel.context_parallel=3"], "compute.nodes": 2, "compute.processesPerNode": 4},
            r"spec\.compute: parallel\.context_parallel=3 does not divide 2 nodes x 4 processes = 8; use a multiple of "
            r"3 processes, or override parallel\.context_parallel with 1$",
        ),
        (
            {"training.overrides": ["parallel.context_parallel=3"], "compute.processesPerNode": 9},
            r"spec\.compute: 1 node x 9 processes / parallel\.context_parallel 3 x micro-batch 8 = 24 samples do not "
            r"divide the global batch of 16; override trainer\.global_batch_size with a multiple of 24$",
        ),
        (
            {"training.overrides": ["ema.enabled=false"], "outputs.weights": "Ema"},
            r"spec\.outputs\.weights: 'Ema', but the experiment keeps no average \(ema\.enabled=false\); set "
            r"spec\.outputs\.weights: Regular$",
        ),
        (
            {"training.overrides": ["ema.enabled=false"]},
            r"spec\.outputs\.weights: 'Ema' \(the default\), but the experiment keeps no average",
        ),
        (
            {"tokenizer.source": {"s3": {"uri": "s3://lab/model.pt"}}},
            r"spec\.tokenizer\.source\.s3\.uri: 's3://lab/model\.pt' is one file of weights, which only spec\.model",
        ),
        ({"compute.processesPerNode": 4}, r"trainer\.micro_batch_size with one of 1, 2, 4"),
        ({"outputs.step": 41}, r"spec\.outputs\.step: no checkpoint is written at step 41; use a multiple of"),
        (
            {"outputs.checkpoint": "Best"},
            r"spec\.outputs\.checkpoint: 'Best' needs held-out losses .* add trainer\.keep_best=true",
        ),
        (
            {"outputs.adapter": True},
            r"spec\.outputs\.adapter: true, but the experiment trains all weights \(lora\.rank 0\)",
        ),
        (
            {"outputs.checkpoint": "Best", "outputs.step": 40},
            r"spec\.outputs: got step 40 and checkpoint Best; give one of them",
        ),
        (
            {"dataset.cameraName": "front"},
            r"spec\.dataset\.cameraName: 'front' chooses a camera of the layout LeRobot, the layout is Bridge; remove "
            r"it or use spec\.dataset\.camera",
        ),
        (
            {"dataset.cameraName": "front", "dataset.layout": "Jsonl"},
            r"the layout is Jsonl; remove it$",
        ),
        (
            {"dataset.camera": 1, "dataset.layout": "LeRobot"},
            r"spec\.dataset\.camera: 1 chooses a video of .* the layout is LeRobot; use spec\.dataset\.cameraName",
        ),
        (
            {"dataset.camera": 2, "dataset.layout": "Videos"},
            r"spec\.dataset\.camera: 2 .* the layout is Videos; remove it",
        ),
        (
            {"dataset.frameRate": "Resample"},
            r"spec\.dataset\.frameRate: 'Resample' takes frames at the rate of .*; add video\.fps=30, or another",
        ),
        (
            {
                "dataset.frameRate": "Resample",
                "training.overrides": ["buckets=[{num_pixel_frames: 17, height: 128, width: 160}]", "video.fps=5"],
            },
            r"spec\.dataset\.frameRate: .*; give every bucket an fps in the override buckets=\[\.\.\]",
        ),
        ({"inference.1.name": "before"}, r"spec\.inference\[1\]\.name: 'before' is used twice"),
        (
            {"inference.0.inputsFile": "data://x.jsonl"},
            r"spec\.inference\[0\]\.inputsFile: unknown volume in 'data://x\.jsonl'; use one of dataset://",
        ),
        ({"inference.0.inputsFile": "dataset://../x"}, r"leaves its volume; remove '\.\.'"),
        (
            {"inference.1.metrics": ["Psnr"]},
            r"spec\.inference\[1\]\.inputs\[0\]\.groundTruth: missing, which the metric Psnr needs",
        ),
        (
            {"inference.0.parameters": {"numPixelFrames": 9, "numInputFrames": 9}},
            r"numPixelFrames: 9 leaves nothing to generate after 9 input frames",
        ),
        ({"inference.0.parameters": {"numPixelFrames": 25}}, r"25 is not a multiple of the tokenizer's 17"),
        ({"inference.0.parameters": {"numPixelFrames": 136 + 17}}, r"numPixelFrames: 153 is more than .* 121"),
        (
            {"inference.0.gpus": 4, "inference.0.contextParallel": 3},
            r"spec\.inference\[0\]\.contextParallel: 3 does not divide the 4 processes of the item",
        ),
        (
            {"inference.0.processes": 2, "inference.0.contextParallel": 2},
            r"contextParallel: 2 does not divide the 3 latent frames; use a number that does",
        ),
        ({"inference.0.parameters": {"width": 1024}}, r"parameters\.width: 1024 is more than .* use at most 512"),
        (
            {
                "compute.nodes": 2,
                "training.overrides": ["trainer.micro_batch_size=4"],
                "storage.models.create": {"size": "1Gi", "accessMode": "ReadWriteOnce"},
            },
            r"spec\.storage\.models\.create\.accessMode: ReadWriteOnce does not serve 2 nodes",
        ),
        (
            {"storage.models.create": {"size": "1Gi"}, "storage.datasets.create": {"size": "2Gi"}},
            r"spec\.storage\.datasets\.create: differs from spec\.storage\.models\.create of the same claim",
        ),
    ],
)  # fmt: skip
def test_check_names_the_field_and_the_remedy(changes, message):
    with pytest.raises(InvalidSpec, match=message):
        make_job(changes)


@pytest.mark.parametrize(
    "dataset",
    [
        {"layout": "LeRobot", "cameraName": "observation.images.front"},
        {"layout": "Bridge", "camera": 1},
        {"layout": "Jsonl"},
    ],
)
def test_camera_is_chosen_as_the_layout_does(dataset):
    make_job({f"dataset.{name}": value for name, value in dataset.items()})


def test_frames_can_be_resampled_at_the_rate_of_the_windows():
    make_job({"dataset.frameRate": "Resample", "training.overrides": ["video.fps=5"]})


def test_enormous_batch_is_refused_at_once():
    overrides = ["trainer.global_batch_size=1000000000000000001", "trainer.micro_batch_size=1"]

    with pytest.raises(
        InvalidSpec, match=r"less than or equal to 1000000000 \(got 1000000000000000001"
    ):
        make_job({"training.overrides": overrides})


def test_batch_that_is_not_divided_names_the_micro_batches_that_divide_it():
    overrides = ["trainer.global_batch_size=12", "trainer.micro_batch_size=4"]

    with pytest.raises(InvalidSpec, match=r"trainer.micro_batch_size with one of 1, 2, 3, 6$"):
        make_job({"training.overrides": overrides, "compute.processesPerNode": 2})


def job_of(preset: Preset, changes=None):
    """A job that trains a preset on the GPUs that it is made for, eight of them or fewer in each node."""
    gpus = preset.hardware.num_gpus
    per_node = min(gpus, 8)
    return make_job(
        {
            "training": {"experiment": preset.experiment.name},
            "compute": {"nodes": gpus // per_node, "gpusPerNode": per_node},
            "embeddings": {"encoder": "google-t5/t5-11b"},
            "inference": [],
            **(changes or {}),
        }
    )


@pytest.mark.parametrize(
    "preset",
    [preset for preset in PRESETS if preset.hardware],
    ids=lambda preset: preset.experiment.name,
)
def test_preset_is_a_valid_job_on_its_own_gpus(preset):
    weights = "Ema" if preset.experiment.ema.enabled else "Regular"

    job_of(preset, {"outputs.weights": weights})


@pytest.mark.parametrize(
    "preset",
    [preset for preset in PRESETS if not preset.experiment.ema.enabled],
    ids=lambda preset: preset.experiment.name,
)
def test_preset_without_an_average_publishes_its_regular_weights(preset):
    with pytest.raises(
        InvalidSpec, match=r"keeps no average .*; set spec\.outputs\.weights: Regular$"
    ):
        job_of(preset)


def test_processes_that_share_frames_see_the_same_samples():
    overrides = ["parallel.context_parallel=3", "trainer.micro_batch_size=4"]

    job = make_job({"training.overrides": overrides, "compute.processesPerNode": 12})

    assert num_data_groups(job, resolve_experiment(job)) == 4
