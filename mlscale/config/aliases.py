"""Names that people bring from elsewhere, and what they are called here. The only such table.

From plain PyTorch scripts, the Lightning CLI, Hugging Face's Trainer, Keras, timm and launchers. A name is looked up as
it was typed (`optimizer.name`), then by its last part (`trainer.epochs` → `epochs`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Alias:
    """What a foreign name means here; the first of these that fits the config and the value is suggested.

    Attributes:
        values: whole overrides for certain values, e.g. ``{"true": "precision=fp16"}``.
        group: a config group whose option the value names.
        keys: our keys, of which the first that this config has takes the value.
        text: overrides to type where none of the above fits; `{value}`, `{list}` and `{global_batch}` are filled in.
        name: the same for a value that is a plain name, where `text` takes a dotted path.
        also: an override to type besides a key's.
        note: what differs from the place the name comes from.
    """

    keys: tuple[str, ...] = ()
    group: str = ""
    values: Mapping[str, str] = field(default_factory=dict)
    text: str = ""
    name: str = ""
    also: str = ""
    note: str = ""


def _key(*keys: str, text: str = "", also: str = "", note: str = "") -> Alias:
    return Alias(keys=keys, text=text, also=also, note=note)


def _switch(on: str, off: str, note: str = "") -> Alias:
    return Alias(values={"true": on, "1": on, "false": off, "0": off}, text=on, note=note)


GLOBAL_BATCH = "data.batch_size is global: all devices and accumulation together"
_BATCH = _key("data.batch_size", note=GLOBAL_BATCH)
_PER_DEVICE = Alias(text="data.batch_size={global_batch}", note=GLOBAL_BATCH)
_GPUS = Alias(keys=("trainer.devices",), also="trainer.accelerator=gpu", values={"0": "trainer.accelerator=cpu"})
_EPOCHS = _key("trainer.max_epochs")
_LR = _key("optimizer.lr")
_DECAY = _key("optimizer.weight_decay")
_EPS = _key("optimizer.eps", text="optimizer=adamw optimizer.eps={value}")
_MOMENTUM = _key("optimizer.momentum", "optimizer.betas")
_ACCUMULATE = _key("trainer.accumulate_grad_batches", note="data.batch_size stays what it is: accumulation divides it")
_CLIP = _key("trainer.gradient_clip_val")
_WORKERS = _key("data.workers", note="threads that decode, per process")
_STEPS = _key("trainer.max_steps", note="-1 for no limit")
_SEED = _key("seed")
_ROOT = _key("data.root", "data.train", text="data=imagefolder data.root={value}")
_EVERY = _key("callbacks.checkpoint.every_n_steps", note="optimizer steps")
_RUNS = _key("runs_dir", note="each run makes its own folder in it")
_MODEL = Alias(
    group="model",
    values={
        name: f"model=resnet18 model._target_=torchvision.models.{name}"
        for name in ("resnet34", "resnet50", "resnet101", "resnet152")
    },
    text="model._target_={value}",
    name="model=timm model.model_name={value}",
)
_DEPTH = Alias(
    keys=("model.blocks",),
    values={"18": "model=resnet18", **{name.removeprefix("resnet"): fix for name, fix in _MODEL.values.items()}},
    note="model.widths and model.blocks make the small ResNet's depth; model=resnet18 is torchvision's",
)
_MIXUP = _key("augment.mixup", text="augment=mixup", note="the α of a Beta distribution; 0 for none")
_CUTMIX = _key("augment.cutmix", text="augment=cutmix", note="the α of a Beta distribution; 0 for none")
_SAMPLING = _key("data.sampling", note="shuffle, balanced or weighted")
_FREEZE = _switch("callbacks=[default,freeze]", "callbacks=default", "callbacks.freeze.modules names what")
_BALANCED = _switch("data.sampling=balanced", "data.sampling=shuffle")
_EPOCH = _key("data.epoch_samples")
_SKIP = _switch("data.on_bad_sample=skip", "data.on_bad_sample=fail")
_HIDDEN = _key(
    "model.hidden", text="model=mlp model.hidden={list}", note="the width of each hidden layer of the mlp, a list"
)
_DATA = Alias(group="data", text="data=imagefolder data.root={value}", name="data=imagefolder data.root=<folder>")
_OPTIMIZER = Alias(group="optimizer", text="optimizer._target_={value}", name="optimizer._target_=torch.optim.{value}")
_SCHEDULER = Alias(
    group="scheduler", text="scheduler._target_={value}", name="scheduler._target_=torch.optim.lr_scheduler.{value}"
)
_STRATEGY = Alias(
    group="strategy",
    values={
        "nccl": "strategy=ddp", "gloo": "strategy=ddp", "ddp_spawn": "strategy=ddp", "dp": "strategy=ddp",
        "ddp_find_unused_parameters_true": "strategy=ddp strategy.find_unused_parameters=true",
    },
    text="strategy=auto",
)  # fmt: skip
_UNUSED = _key("strategy.find_unused_parameters", text="strategy=ddp strategy.find_unused_parameters={value}")
_PROJECT = _key("logger.wandb.project", text="logger=wandb logger.wandb.project={value}")
_ENTITY = _key("logger.wandb.entity", text="logger=wandb logger.wandb.entity={value}")
_LOGGER = Alias(group="logger", values={"true": "logger=csv", "false": "logger=none", "all": "logger=[csv,wandb]"})
_NODES = _key("trainer.devices", note="mlscale starts processes on this machine; there is no setting for nodes")
_PATIENCE = _key(
    "callbacks.early_stopping.patience",
    text="callbacks=[default,early_stopping] callbacks.early_stopping.patience={value}",
    note="validations without improvement",
)
_WARMUP = _key(
    "scheduler.warmup",
    text="scheduler=warmup_cosine scheduler.warmup={value}",
    note="below 1 the part of the run that warms up, else optimizer steps",
)
_WARMUP_EPOCHS = Alias(text="scheduler=warmup_cosine scheduler.warmup=0.05", note="the part of the run that warms up")
_CLIP_VALUE = _key("trainer.gradient_clip_val", also="trainer.gradient_clip_algorithm=value")


def _callback(name: str, key: str = "", note: str = "") -> Alias:
    """A callback that is on when it is listed; `key` is the setting of it that takes a value which is no switch."""
    on, off = f"callbacks=[default,{name}]", "callbacks=default"
    keys = (f"callbacks.{name}.{key}",) if key else ()
    text = f"{on} callbacks.{name}.{key}={{value}}" if key else on
    return Alias(
        keys=keys, values={"true": on, "false": off} | ({} if key else {"1": on, "0": off}), text=text, note=note
    )


_EMA_DECAY = _callback("ema", "decay", "what one optimizer step keeps of the average")
_GRAD_NORM = _callback("grad_norm", note="written every trainer.log_every_n_steps")
_DEVICE_STATS = _callback("device_stats")
_NOTIFY = _key(
    "callbacks.notify.webhook",
    text="callbacks=[default,notify] callbacks.notify.webhook={value}",
    note="gets a JSON POST; a mail and a command may be told, too",
)
_STALL = _key("callbacks.stall.after_s", text="callbacks=default", note="seconds without a step; every run has it")
_TF32 = _key("tf32")
_TF32_BY_NAME = Alias(values={"high": "tf32=true", "medium": "tf32=true", "highest": "tf32=false"}, text="tf32=true")
_DROPOUT = Alias(note="the models set their own layers; a model of yours takes it as an argument of its class")
_LIGHTER = Alias(text="debug=fast", note="one training and one validation step")
_NO_BAR = Alias(
    values={"0": "~callbacks.progress", "false": "~callbacks.progress"}, note="the progress bar is callbacks.progress"
)
_COMPILE = _key("compile", note="true, or a mode of torch.compile")
_CHECKPOINT = _key("init_from", note="starts from its weights; `mlscale runs resume RUN` goes on with a run to the bit")

PRECISIONS: Mapping[str, str] = {
    "32": "fp32", "32-true": "fp32", "float32": "fp32", "fp32": "fp32", "full": "fp32", "no": "fp32", "false": "fp32",
    "16": "fp16", "16-mixed": "fp16", "float16": "fp16", "fp16": "fp16", "half": "fp16", "true": "fp16",
    "mixed": "fp16",     "mixed_float16": "fp16", "16-true": "fp16_true", "fp16_true": "fp16_true",
    "bf16": "bf16", "bf16-mixed": "bf16", "bfloat16": "bf16", "mixed_bfloat16": "bf16", "bf16-true": "bf16_true",
    "bf16_true": "bf16_true",
}  # fmt: skip
_PRECISION = Alias(values={name: f"precision={ours}" for name, ours in PRECISIONS.items()}, group="precision")

ALIASES: Mapping[str, Alias] = {
    # devices and processes
    "gpus": _GPUS, "gpu": _GPUS, "n_gpu": _GPUS, "n_gpus": _GPUS, "ngpus": _GPUS, "num_gpus": _GPUS, "num_gpu": _GPUS,
    "ngpus_per_node": _GPUS, "gpus_per_node": _GPUS, "nproc_per_node": _key("trainer.devices"),
    "nproc": _key("trainer.devices"), "n_devices": _key("trainer.devices"), "num_devices": _key("trainer.devices"),
    "num_processes": _key("trainer.devices"), "world_size": _key("trainer.devices"), "devices": _key("trainer.devices"),
    "device": Alias(
        values={"cuda": "trainer.accelerator=gpu", "gpu": "trainer.accelerator=gpu", "cpu": "trainer.accelerator=cpu",
                "mps": "trainer.accelerator=mps", "auto": "trainer.accelerator=auto"},
        text="trainer.accelerator=gpu", note="trainer.devices counts them, CUDA_VISIBLE_DEVICES picks them"),
    "accelerator": _key("trainer.accelerator"),
    "cuda": _switch("trainer.accelerator=gpu", "trainer.accelerator=cpu"),
    "use_cuda": _switch("trainer.accelerator=gpu", "trainer.accelerator=cpu"),
    "no_cuda": _switch("trainer.accelerator=cpu", "trainer.accelerator=gpu"),
    "use_cpu": _switch("trainer.accelerator=cpu", "trainer.accelerator=auto"),
    "mps": _switch("trainer.accelerator=mps", "trainer.accelerator=cpu"),
    "tpu_cores": Alias(note="TPUs are not supported: cpu, gpu (CUDA, ROCm) and mps are"),
    "num_nodes": _NODES, "nnodes": _NODES, "nodes": _NODES, "node_rank": Alias(note="mlscale starts the ranks itself"),
    "distributed_backend": _STRATEGY, "dist_backend": _STRATEGY, "backend": _STRATEGY, "distributed": _STRATEGY,
    "distribute_strategy": _STRATEGY,
    "ddp": _switch("strategy=ddp", "strategy=single"), "fsdp": _STRATEGY, "deepspeed": _STRATEGY,
    "find_unused_parameters": _UNUSED, "ddp_find_unused_parameters": _UNUSED,
    "ddp_timeout": _key("strategy.timeout", text="strategy=ddp strategy.timeout={value}"),
    "sync_batchnorm": _key("trainer.sync_batchnorm"), "sync_bn": _key("trainer.sync_batchnorm"),
    # length of a run
    "epochs": _EPOCHS, "epoch": _EPOCHS, "num_epochs": _EPOCHS, "n_epochs": _EPOCHS, "nb_epoch": _EPOCHS,
    "max_epoch": _EPOCHS, "max_epochs": _EPOCHS, "num_train_epochs": _EPOCHS, "train_epochs": _EPOCHS,
    "total_epochs": _EPOCHS, "steps": _STEPS, "max_steps": _STEPS, "num_steps": _STEPS, "max_iters": _STEPS,
    "iterations": _STEPS, "num_iterations": _STEPS, "total_steps": _STEPS, "max_train_steps": _STEPS,
    "max_time": _key("trainer.max_time"),
    # optimiser
    "lr": _LR, "learning_rate": _LR, "base_lr": _LR, "init_lr": _LR, "initial_lr": _LR, "lr0": _LR, "eta": _LR,
    "max_lr": _LR, "blr": _LR, "wd": _DECAY, "weight_decay": _DECAY, "l2": _DECAY, "decay": _DECAY,
    "momentum": _MOMENTUM, "betas": _key("optimizer.betas", text="optimizer=adamw optimizer.betas={value}"),
    "adam_beta1": _key(text="optimizer=adamw optimizer.betas=[{value},0.999]"),
    "adam_beta2": _key(text="optimizer=adamw optimizer.betas=[0.9,{value}]"),
    "adam_epsilon": _EPS, "eps": _EPS,
    "nesterov": _key("optimizer.nesterov", text="optimizer=sgd optimizer.nesterov={value}"),
    "opt": _OPTIMIZER, "optim": _OPTIMIZER, "optimizer_name": _OPTIMIZER, "optimizer_type": _OPTIMIZER,
    "optimizer.name": _OPTIMIZER, "optimizer.type": _OPTIMIZER, "optimiser": _OPTIMIZER,
    "sched": _SCHEDULER, "lr_scheduler": _SCHEDULER, "lr_scheduler_type": _SCHEDULER, "lr_schedule": _SCHEDULER,
    "scheduler_name": _SCHEDULER, "scheduler.name": _SCHEDULER, "scheduler.type": _SCHEDULER,
    "warmup": _WARMUP, "warmup_steps": _WARMUP, "num_warmup_steps": _WARMUP, "warmup_iters": _WARMUP,
    "warmup_epochs": _WARMUP_EPOCHS, "lr_warmup_epochs": _WARMUP_EPOCHS, "warmup_fraction": _WARMUP,
    "warmup_ratio": _WARMUP, "warmup_proportion": _WARMUP, "warmup_pct": _WARMUP, "lr_warmup_steps": _WARMUP,
    "min_lr": Alias(text="scheduler=warmup_cosine scheduler.final=0.01", note="what is left of the rate, as a part"),
    "clip_value": _CLIP_VALUE, "clipvalue": _CLIP_VALUE, "clip_grad_value": _CLIP_VALUE,
    "gradient_clip_algorithm": _key("trainer.gradient_clip_algorithm"),
    "clip_mode": _key("trainer.gradient_clip_algorithm"),
    "ema": _EMA_DECAY, "use_ema": _EMA_DECAY, "model_ema": _EMA_DECAY, "ema_decay": _EMA_DECAY,
    "model_ema_decay": _EMA_DECAY, "ema_weight_decay": _EMA_DECAY, "averaging": _EMA_DECAY,
    "swa": Alias(text="callbacks=[default,ema] callbacks.ema.warmup=polyak", note="the plain mean of the weights"),
    "model_ema_warmup": Alias(text="callbacks=[default,ema] callbacks.ema.warmup=timm"),
    "ema_warmup": Alias(text="callbacks=[default,ema] callbacks.ema.warmup=timm"),
    "clip": _CLIP, "clip_grad": _CLIP, "grad_clip": _CLIP, "clip_norm": _CLIP, "clipnorm": _CLIP, "max_norm": _CLIP,
    "max_grad_norm": _CLIP, "grad_norm_clip": _CLIP, "gradient_clip": _CLIP, "gradient_clipping": _CLIP,
    "gradient_clip_val": _CLIP,
    "grad_accum": _ACCUMULATE, "grad_accum_steps": _ACCUMULATE, "gradient_accumulation_steps": _ACCUMULATE,
    "accumulation_steps": _ACCUMULATE, "accum_iter": _ACCUMULATE, "accum_steps": _ACCUMULATE,
    "accumulate_grad_batches": _ACCUMULATE, "gradient_accumulation": _ACCUMULATE,
    # precision
    "amp": _switch("precision=bf16", "precision=fp32", "precision=fp16 on GPUs without bfloat16"),
    "use_amp": _switch("precision=bf16", "precision=fp32", "precision=fp16 on GPUs without bfloat16"),
    "mixed_precision": _PRECISION, "precision": _PRECISION, "dtype": _PRECISION, "torch_dtype": _PRECISION,
    "fp16": _switch("precision=fp16", "precision=fp32"), "half": _switch("precision=fp16", "precision=fp32"),
    "bf16": _switch("precision=bf16", "precision=fp32"), "fp32": _switch("precision=fp32", "precision=bf16"),
    # data
    "batch_size": _BATCH, "bs": _BATCH, "batch": _BATCH, "batchsize": _BATCH, "train_batch_size": _BATCH,
    "global_batch_size": _BATCH, "batch_size_per_gpu": _PER_DEVICE, "per_device_batch_size": _PER_DEVICE,
    "per_device_train_batch_size": _PER_DEVICE, "micro_batch_size": _PER_DEVICE, "samples_per_gpu": _PER_DEVICE,
    "eval_batch_size": _BATCH, "val_batch_size": _BATCH, "per_device_eval_batch_size": _PER_DEVICE,
    "num_workers": _WORKERS, "workers": _WORKERS, "n_workers": _WORKERS, "nworkers": _WORKERS,
    "dataloader_num_workers": _WORKERS, "workers_per_gpu": _WORKERS,
    "dataset": _DATA, "dataset_name": _DATA, "datamodule": _DATA, "data_name": _DATA, "data.name": _DATA,
    "data_dir": _ROOT, "data_path": _ROOT, "data_root": _ROOT, "dataroot": _ROOT, "datadir": _ROOT, "root": _ROOT,
    "dataset_dir": _ROOT, "dataset_path": _ROOT, "train_dir": _ROOT, "root_dir": _ROOT,
    "val_split": _key("data.val_fraction", text="data=imagefolder data.val_fraction={value}"),
    "validation_split": _key("data.val_fraction", text="data=imagefolder data.val_fraction={value}"),
    "val_size": _key("data.val_fraction", text="data=imagefolder data.val_fraction={value}"),
    "img_size": _key("data.image_size"), "image_size": _key("data.image_size"), "imgsz": _key("data.image_size"),
    "input_size": _key("data.image_size"), "crop_size": _key("data.image_size"), "resolution": _key("data.image_size"),
    "augmentation": Alias(group="augment", values={"true": "augment=shift", "false": "augment=none"}),
    "aug": Alias(group="augment", values={"true": "augment=shift", "false": "augment=none"}),
    "hflip": Alias(text="augment=flip"), "shuffle": Alias(note="training data is always shuffled, by `seed`"),
    "drop_last": _switch("data.last=drop", "data.last=pad", note="evaluation sees every sample once"),
    "mixup": _MIXUP, "mixup_alpha": _MIXUP, "mixup_off_epoch": Alias(note="mixup is on for the whole run"),
    "cutmix": _CUTMIX, "cutmix_alpha": _CUTMIX,
    "sampler": _SAMPLING, "sampling": _SAMPLING, "sampling_strategy": _SAMPLING, "balanced": _BALANCED,
    "class_balanced": _BALANCED, "balanced_sampling": _BALANCED, "balance_classes": _BALANCED,
    "sample_weights": _key("data.weights", also="data.sampling=weighted"),
    "samples_per_epoch": _EPOCH, "epoch_size": _EPOCH, "epoch_length": _EPOCH, "num_samples_per_epoch": _EPOCH,
    "ignore_corrupt": _SKIP, "skip_corrupt": _SKIP, "skip_bad_samples": _SKIP, "skip_errors": _SKIP,
    "pin_memory": Alias(note="the loader does it where it helps"),
    # model and task
    "arch": _MODEL, "model_name": _MODEL, "model_type": _MODEL, "backbone": _MODEL, "net": _MODEL, "network": _MODEL,
    "model.name": _MODEL, "model.type": _MODEL, "model_name_or_path": _MODEL, "architecture": _MODEL,
    "num_classes": _key("task.num_classes", note="found in the data; only a task of yours needs it set"),
    "n_classes": _key("task.num_classes", note="found in the data; only a task of yours needs it set"),
    "freeze": _FREEZE, "freeze_backbone": _FREEZE, "freeze_encoder": _FREEZE, "freeze_epochs": _key(
        "callbacks.freeze.until_epoch", text="callbacks=[default,freeze] callbacks.freeze.until_epoch={value}"
    ), "layer_decay_rate": _key("layer_decay"), "layerwise_lr_decay": _key("layer_decay"), "llrd": _key("layer_decay"),
    "channels_last": Alias(values={"true": "precision.memory_format=channels_last",
                                   "false": "precision.memory_format=null"}),
    "memory_format": _key("precision.memory_format"), "init_scale": _key("precision.loss_scale"),
    "initial_scale_power": Alias(text="precision.loss_scale=65536", note="the scale itself, not its power of two"),
    "pretrained": Alias(text="model=resnet18 model.weights=DEFAULT", note="torchvision's models take `weights`"),
    "depth": _DEPTH, "num_layers": _DEPTH, "n_layers": _DEPTH,
    "hidden": _HIDDEN, "hidden_size": _HIDDEN, "hidden_dim": _HIDDEN, "hidden_sizes": _HIDDEN,
    "dropout": _DROPOUT, "drop": _DROPOUT, "drop_rate": _DROPOUT, "dropout_rate": _DROPOUT,
    "smoothing": _key("task.label_smoothing"), "label_smoothing": _key("task.label_smoothing"),
    "label_smoothing_factor": _key("task.label_smoothing"), "loss": Alias(group="task"),
    "criterion": Alias(group="task"),
    # where things go, and names
    "output_dir": _RUNS, "out_dir": _RUNS, "outdir": _RUNS, "output": _RUNS, "save_dir": _RUNS, "save_path": _RUNS,
    "work_dir": _RUNS, "workdir": _RUNS, "log_dir": _RUNS, "logdir": _RUNS, "logging_dir": _RUNS, "exp_dir": _RUNS,
    "default_root_dir": _RUNS, "checkpoint_dir": _RUNS, "results_dir": _RUNS,
    "experiment": Alias(keys=("name",), group="recipe"),
    "experiment_name": _key("name"), "exp_name": _key("name"), "run_name": _key("name"),
    "project": _PROJECT, "project_name": _PROJECT, "wandb_project": _PROJECT, "entity": _ENTITY,
    "wandb_entity": _ENTITY,
    "wandb": _switch("logger=wandb", "logger=none"), "use_wandb": _switch("logger=wandb", "logger=none"),
    "tensorboard": _switch("logger=tensorboard", "logger=none"), "logger_name": _LOGGER, "report_to": _LOGGER,
    "log_with": _LOGGER, "loggers": _LOGGER, "tracker": _LOGGER,
    "log_interval": _key("trainer.log_every_n_steps"), "logging_steps": _key("trainer.log_every_n_steps"),
    "log_every": _key("trainer.log_every_n_steps"), "print_freq": _key("trainer.log_every_n_steps"),
    "eval_every": _key("trainer.check_val_every_n_epoch"), "eval_interval": _key("trainer.check_val_every_n_epoch"),
    "eval_steps": _key("trainer.val_check_interval"),
    "metric_for_best_model": _key("metric"), "monitor_metric": _key("metric"), "metric_mode": _key("mode"),
    "monitor_mode": _key("mode"),
    "greater_is_better": Alias(values={"true": "mode=max", "false": "mode=min"}),
    # repeatability
    "random_seed": _SEED, "manual_seed": _SEED, "seed_everything": _SEED, "random_state": _SEED, "data_seed": _SEED,
    "deterministic": _key("trainer.deterministic"), "cudnn_deterministic": _key("trainer.deterministic"),
    "full_determinism": _key("trainer.deterministic"), "cudnn_benchmark": _key("trainer.benchmark"),
    "benchmark": _key("trainer.benchmark"), "use_deterministic_algorithms": _key("trainer.deterministic"),
    "tf32": _TF32, "allow_tf32": _TF32, "use_tf32": _TF32, "float32_matmul_precision": _TF32_BY_NAME,
    "matmul_precision": _TF32_BY_NAME,
    # checkpoints and stopping
    "ckpt": _CHECKPOINT, "ckpt_path": _CHECKPOINT, "checkpoint": _CHECKPOINT, "checkpoint_path": _CHECKPOINT,
    "resume": _CHECKPOINT, "resume_from": _CHECKPOINT, "resume_from_checkpoint": _CHECKPOINT, "load_from": _CHECKPOINT,
    "save_last": _key("callbacks.checkpoint.save_last"), "save_top_k": _key("callbacks.checkpoint.save_top_k"),
    "save_total_limit": _key("callbacks.checkpoint.keep", note="the best and the last stay besides"),
    "save_steps": _EVERY, "every_n_train_steps": _EVERY, "checkpoint_every": _EVERY, "save_every": _EVERY,
    "save_interval": _EVERY, "ckpt_interval": _EVERY, "save_freq": _EVERY,
    "train_time_interval": _key("callbacks.checkpoint.every_n_minutes", note="in minutes"),
    "early_stopping": _switch("callbacks=[default,early_stopping]", "callbacks=default"),
    "early_stop": _switch("callbacks=[default,early_stopping]", "callbacks=default"),
    "patience": _PATIENCE, "early_stopping_patience": _PATIENCE, "callback": Alias(group="callbacks"),
    # looking closer
    "debug_mode": _LIGHTER, "dry_run": _LIGHTER, "fast_dev_run": _LIGHTER, "smoke_test": _LIGHTER,
    "overfit": Alias(text="debug=overfit"), "overfit_batches": _key("trainer.overfit_batches"),
    "limit_train_batches": _key("trainer.limit_train_batches"), "limit_val_batches": _key("trainer.limit_val_batches"),
    "verbose": _NO_BAR, "progress_bar": _NO_BAR, "enable_progress_bar": _NO_BAR,
    "disable_tqdm": Alias(values={"true": "~callbacks.progress"}, note="the progress bar is callbacks.progress"),
    "compile": _COMPILE, "torch_compile": _COMPILE, "torchcompile": _COMPILE, "use_compile": _COMPILE,
    "compile_model": _COMPILE, "jit_compile": _COMPILE, "torch_compile_mode": _COMPILE, "compile_mode": _COMPILE,
    "track_grad_norm": _GRAD_NORM, "log_grad_norm": _GRAD_NORM, "grad_norm": _GRAD_NORM,
    "log_gradients": _GRAD_NORM, "lr_monitor": _callback("lr_monitor"), "log_lr": _callback("lr_monitor"),
    "device_stats": _DEVICE_STATS, "gpu_stats": _DEVICE_STATS, "log_gpu_memory": _DEVICE_STATS,
    "system_metrics": _DEVICE_STATS, "loss_spike": _callback("loss_spike"), "spike_detection": _callback("loss_spike"),
    "webhook": _NOTIFY, "notify": _NOTIFY, "slack_webhook": _NOTIFY, "notification": _NOTIFY,
    "watchdog": _STALL, "stall": _STALL, "stall_timeout": _STALL, "hang_timeout": _STALL,
    "local_rank": Alias(note="mlscale starts the ranks itself: leave torchrun out and set trainer.devices"),
}  # fmt: skip

OPTIONS: Mapping[str, Alias] = {
    "precision": _PRECISION, "model": _MODEL, "strategy": _STRATEGY, "logger": _LOGGER, "data": _DATA,
    "optimizer": _OPTIMIZER, "scheduler": _SCHEDULER,
    # lightning-hydra-template's
    "trainer": Alias(values={"cpu": "trainer.accelerator=cpu", "gpu": "trainer.accelerator=gpu",
                             "mps": "trainer.accelerator=mps", "ddp": "trainer.devices=2",
                             "ddp_sim": "trainer.devices=2 trainer.accelerator=cpu"}),
    "debug": Alias(values={"default": "debug=fast", "fdr": "debug=fast", "true": "debug=fast"}),
}  # fmt: skip
"""Of groups whose options go by other names elsewhere, what those are called here."""

MODULES: Mapping[str, str] = {"lightning.pytorch": "pytorch_lightning", "lightning": "pytorch_lightning"}
"""Packages that are another name of what is installed."""
