"""``--set``: every key of a config with values of every type."""

from __future__ import annotations

import itertools
import random

from hostile import mutate
from hostile.case import FOUND, MAYBE, MISTAKE, Case

CHECKPOINT = "ws/pretrain/run-001/iter_4.pth"
TRAIN = ("pretrain", "tiny.py", CHECKPOINT, "--workspace", "ws2", "--set", "train_cfg.max_iters=1")
EVALUATE = ("evaluate", "tiny.py", CHECKPOINT, "--workspace", "ws", "--eval-images", "1")
ADAPT = ("adapt", "tiny.py", CHECKPOINT, "--workspace", "ws", "--set", "train_cfg.max_iters=1")
LATENCY = ("latency", "tiny.py", "--workspace", "ws", "--img-size", "64", "--seconds", "0.01")
EXPORT = ("export-config", "tiny.py", "--workspace", "ws", "--sparsity", "ws/best.yaml")
WRITES = ("ws2/*", "ws2")

# what is certainly wrong
WRONG: tuple[str, ...] = (
    *("optim_wrapper=5", "optim_wrapper=x", "optim_wrapper.type=Nothing", "optim_wrapper.optimizer=5"),
    *("optim_wrapper.optimizer.type=Nothing", "optim_wrapper.optimizer.type=5"),
    *("optim_wrapper.optimizer.lr=x", "optim_wrapper.optimizer.lr=-1", "optim_wrapper.optimizer.lr=[1]"),
    *("optim_wrapper.optimizer.lr=None", "optim_wrapper.optimizer.weight_decay=x"),
    *("optim_wrapper.optimizer.weight_decay=-1", "optim_wrapper.optimizer.betas=x"),
    *("optim_wrapper.optimizer.betas=[2,2]", "optim_wrapper.optimizer.betas=0.9"),
    *("optim_wrapper.optimizer.betas=[0.9]", "optim_wrapper.optimizer.nothing=1"),
    *("optim_wrapper.optimizer.lr=nan", "optim_wrapper.optimizer.eps=-1"),
    *("optim_wrapper.optimizer={}", "optim_wrapper.optimizer=[]", "optim_wrapper.optimizer=None"),
    *("optim_wrapper.clip_grad=5", "optim_wrapper.clip_grad.max_norm=x", "optim_wrapper.clip_grad.nothing=1"),
    *("optim_wrapper.paramwise_cfg=5", "optim_wrapper.paramwise_cfg.custom_keys=5"),
    *("optim_wrapper.paramwise_cfg.custom_keys.norm=5", "optim_wrapper.constructor=Nothing"),
    *("optim_wrapper.accumulative_counts=0", "optim_wrapper.accumulative_counts=x"),
    *("optim_wrapper.accumulative_counts=-1", "optim_wrapper.accumulative_counts=1.5"),
    *("param_scheduler=5", "param_scheduler=x", "param_scheduler.0.type=Nothing", "param_scheduler.0=5"),
    *("param_scheduler.0.type=5", "param_scheduler.0.begin=x", "param_scheduler.0.end=-5"),
    *("param_scheduler.0.start_factor=x", "param_scheduler.0.start_factor=-1", "param_scheduler.9.type=x"),
    *("param_scheduler.0.nothing=1", "param_scheduler.0.by_epoch=x", "param_scheduler.x=1"),
    *("param_scheduler.1.milestones=x", "param_scheduler.1.gamma=x", "param_scheduler.1.milestones=5"),
    *("train_cfg=5", "train_cfg=x", "train_cfg.type=Nothing", "train_cfg.max_iters=x", "train_cfg={}"),
    *("train_cfg.max_iters=0", "train_cfg.max_iters=-1", "train_cfg.max_iters=1.5", "train_cfg.max_iters=[1]"),
    *("train_cfg.max_iters=None", "train_cfg.max_iters=nan", "train_cfg.max_iters=inf"),
    *("train_cfg.val_interval=0", "train_cfg.val_interval=x", "train_cfg.val_interval=-1"),
    *("train_cfg.val_begin=x", "train_cfg.nothing=1", "train_cfg.dynamic_intervals=5"),
    *("train_cfg.by_epoch=x", "train_cfg.type=5", "val_cfg=5", "val_cfg.type=Nothing", "val_cfg.nothing=1"),
    *("model=5", "model=None", "model={}", "model=[]", "model.type=Nothing", "model.type=5", "model.type=None"),
    *("model.type=RetinaNet", "model.backbone=5", "model.backbone=None", "model.backbone={}"),
    *("model.backbone.type=ResNet", "model.backbone.type=Nothing", "model.backbone.nothing=1"),
    *("model.backbone.depths=5", "model.backbone.depths=x", "model.backbone.depths=[2,2]"),
    *("model.backbone.depths=[0,0,0,0]", "model.backbone.depths=[-1,2,2,2]", "model.backbone.depths=[2,2,x,2]"),
    *("model.backbone.depths=[1.5,2,2,2]", "model.backbone.depths=[]", "model.backbone.num_heads=5"),
    *("model.backbone.num_heads=[0,0,0,0]", "model.backbone.num_heads=[3,3,3,3]", "model.backbone.num_heads=x"),
    *("model.backbone.embed_dims=0", "model.backbone.embed_dims=-8", "model.backbone.embed_dims=x"),
    *("model.backbone.embed_dims=1.5", "model.backbone.embed_dims=99999999999999999999"),
    *("model.backbone.embed_dims=1000000000", "model.backbone.window_size=0", "model.backbone.window_size=x"),
    *("model.backbone.window_size=-7", "model.backbone.window_size=1.5", "model.backbone.window_size=[7,7]"),
    *("model.backbone.mlp_ratio=x", "model.backbone.mlp_ratio=0", "model.backbone.mlp_ratio=-1"),
    *("model.backbone.drop_path_rate=x", "model.backbone.drop_path_rate=2", "model.backbone.drop_path_rate=-1"),
    *("model.backbone.drop_rate=5", "model.backbone.attn_drop_rate=x", "model.backbone.out_indices=x"),
    *("model.backbone.out_indices=[9]", "model.backbone.out_indices=[]", "model.backbone.out_indices=5"),
    *("model.backbone.patch_size=0", "model.backbone.patch_size=x", "model.backbone.strides=[0,0,0,0]"),
    *("model.backbone.strides=x", "model.backbone.in_channels=0", "model.backbone.in_channels=x"),
    *("model.backbone.in_channels=1", "model.backbone.qkv_bias=x", "model.backbone.norm_cfg=5"),
    *("model.backbone.norm_cfg.type=Nothing", "model.backbone.act_cfg.type=Nothing", "model.backbone.act_cfg=5"),
    *("model.backbone.frozen_stages=x", "model.backbone.frozen_stages=99", "model.backbone.with_cp=x"),
    *("model.backbone.init_cfg=5", "model.backbone.init_cfg.type=Nothing", "model.backbone.patch_norm=x"),
    *("model.backbone.init_cfg={'type':'Pretrained','checkpoint':'nowhere.pth'}",),
    *("model.backbone.init_cfg={'type':'Pretrained','checkpoint':'https://127.0.0.1:9/x.pth'}",),
    *("model.backbone.init_cfg={'type':'Pretrained'}", "model.backbone.convert_weights=x"),
    *("model.backbone.pruning_ratios=1.2", "model.backbone.pruning_ratios=x"),
    *("model.neck=5", "model.neck.type=Nothing", "model.neck.in_channels=[1,2,3,4]", "model.neck.in_channels=x"),
    *("model.neck.out_channels=0", "model.neck.out_channels=x", "model.neck.num_outs=0", "model.neck.num_outs=x"),
    *("model.neck.out_channels=5", "model.rpn_head=5", "model.rpn_head.type=Nothing", "model.neck.nothing=1"),
    *("model.rpn_head.in_channels=x", "model.rpn_head.in_channels=5", "model.rpn_head.feat_channels=-1"),
    *("model.rpn_head.anchor_generator=5", "model.rpn_head.anchor_generator.type=Nothing"),
    *("model.rpn_head.anchor_generator.scales=x", "model.rpn_head.anchor_generator.strides=[1]"),
    *("model.rpn_head.anchor_generator.ratios=x", "model.rpn_head.bbox_coder.type=Nothing"),
    *("model.rpn_head.loss_cls.type=Nothing", "model.rpn_head.loss_cls=5", "model.rpn_head.loss_bbox.type=5"),
    *("model.roi_head=5", "model.roi_head.type=Nothing", "model.roi_head.bbox_head=5", "model.roi_head.nothing=1"),
    *("model.roi_head.bbox_head.num_classes=0", "model.roi_head.bbox_head.num_classes=x"),
    *("model.roi_head.bbox_head.num_classes=2", "model.roi_head.bbox_head.num_classes=-1"),
    *("model.roi_head.bbox_head.num_classes=80", "model.roi_head.mask_head.num_classes=1"),
    *("model.roi_head.mask_head.num_classes=x", "model.roi_head.bbox_roi_extractor=5"),
    *("model.roi_head.bbox_roi_extractor.type=Nothing", "model.roi_head.bbox_roi_extractor.out_channels=5"),
    *("model.roi_head.bbox_roi_extractor.featmap_strides=x", "model.roi_head.mask_head.conv_out_channels=x"),
    *("model.train_cfg=5", "model.train_cfg=None", "model.train_cfg.rpn=5", "model.train_cfg.rpn.assigner=5"),
    *("model.train_cfg.rpn.assigner.type=Nothing", "model.train_cfg.rpn.sampler.num=x"),
    *("model.train_cfg.rcnn=5", "model.train_cfg.rcnn.sampler.type=Nothing", "model.test_cfg=5"),
    *("model.test_cfg.rcnn=5", "model.test_cfg.rpn=5", "model.test_cfg.rcnn.nms=5"),
    *("model.test_cfg.rcnn.nms.type=nothing", "model.test_cfg.rcnn.score_thr=x", "model.test_cfg=None"),
    *("model.test_cfg.rcnn.max_per_img=x", "model.test_cfg.rpn.max_per_img=x", "model.test_cfg.rpn.nms_pre=x"),
    *("model.data_preprocessor=5", "model.data_preprocessor.type=Nothing", "model.data_preprocessor.mean=x"),
    *("model.data_preprocessor.mean=[1]", "model.data_preprocessor.std=[0,0,0]", "model.data_preprocessor.std=x"),
    *("model.data_preprocessor.pad_size_divisor=0", "model.data_preprocessor.pad_size_divisor=x"),
    *("model.init_cfg=5", "model.init_cfg.type=Nothing", "model.nothing=1"),
    *("val_evaluator=5", "val_evaluator=x", "val_evaluator.type=Nothing", "val_evaluator.metric=nothing"),
    *("val_evaluator.metric=5", "val_evaluator.ann_file=nowhere.json", "val_evaluator.ann_file=5"),
    *("val_evaluator.nothing=1", "val_evaluator.iou_thrs=x", "val_evaluator.proposal_nums=5"),
    *("val_evaluator.format_only=x", "val_evaluator.ann_file=None", "val_evaluator=None", "val_evaluator={}"),
    *("train_dataloader=5", "train_dataloader=x", "train_dataloader={}", "train_dataloader.batch_size=0"),
    *("train_dataloader.batch_size=-1", "train_dataloader.batch_size=x", "train_dataloader.batch_size=1.5"),
    *("train_dataloader.batch_size=None", "train_dataloader.batch_size=99999999999999999999"),
    *("train_dataloader.num_workers=-1", "train_dataloader.num_workers=x", "train_dataloader.num_workers=1.5"),
    *("train_dataloader.num_workers=99999999999999999999", "train_dataloader.nothing=1"),
    *("train_dataloader.sampler=5", "train_dataloader.sampler.type=Nothing", "train_dataloader.sampler={}"),
    *("train_dataloader.batch_sampler=5", "train_dataloader.batch_sampler.type=Nothing"),
    *("train_dataloader.collate_fn=5", "train_dataloader.collate_fn.type=nothing"),
    *("train_dataloader.persistent_workers=x", "train_dataloader.prefetch_factor=-1"),
    *("train_dataloader.dataset=5", "train_dataloader.dataset.type=Nothing", "train_dataloader.dataset.type=5"),
    *("train_dataloader.dataset={}", "train_dataloader.dataset=None", "train_dataloader.dataset.nothing=1"),
    *("train_dataloader.dataset.ann_file=nowhere.json", "train_dataloader.dataset.ann_file=5"),
    *("train_dataloader.dataset.data_root=nowhere", "train_dataloader.dataset.data_root=5"),
    *("train_dataloader.dataset.data_prefix=5", "train_dataloader.dataset.data_prefix.img=nowhere"),
    *("train_dataloader.dataset.data_prefix.img=5", "train_dataloader.dataset.metainfo=5"),
    *("train_dataloader.dataset.metainfo.classes=5", "train_dataloader.dataset.metainfo.classes=[cat]"),
    *("train_dataloader.dataset.metainfo.classes=[]", "train_dataloader.dataset.metainfo.classes=x"),
    *("train_dataloader.dataset.filter_cfg=5", "train_dataloader.dataset.filter_cfg.min_size=x"),
    *("train_dataloader.dataset.filter_cfg.min_size=99999", "train_dataloader.dataset.indices=x"),
    *("train_dataloader.dataset.pipeline=5", "train_dataloader.dataset.pipeline=x"),
    *("train_dataloader.dataset.pipeline=[]", "train_dataloader.dataset.pipeline.0=5"),
    *("train_dataloader.dataset.pipeline.0.type=Nothing", "train_dataloader.dataset.pipeline.0.nothing=1"),
    *("train_dataloader.dataset.pipeline.9.type=x", "train_dataloader.dataset.pipeline.x=1"),
    *("train_dataloader.dataset.pipeline.2.scale=x", "train_dataloader.dataset.pipeline.2.scale=5"),
    *("train_dataloader.dataset.pipeline.2.scale=[0,0]", "train_dataloader.dataset.pipeline.2.scale=[-5,5]"),
    *("train_dataloader.dataset.pipeline.2.scale=[64]", "train_dataloader.dataset.pipeline.3.prob=x"),
    *("train_dataloader.dataset.pipeline.3.prob=5", "train_dataloader.dataset.pipeline.1.with_bbox=False"),
    *("train_dataloader.dataset.pipeline.0.color_type=x", "train_dataloader.dataset.pipeline.4.meta_keys=5"),
    *("train_dataloader.dataset.pipeline.0.imdecode_backend=x", "train_dataloader.dataset.lazy_init=x"),
    *("train_dataloader.dataset.pipeline.0.backend_args=5", "train_dataloader.dataset.max_refetch=x"),
    *("default_hooks=5", "default_hooks.checkpoint=5", "default_hooks.checkpoint.type=Nothing"),
    *("default_hooks.checkpoint.interval=x", "default_hooks.checkpoint.interval=0", "default_hooks.x=5"),
    *("default_hooks.checkpoint.max_keep_ckpts=x", "default_hooks.checkpoint.save_best=nothing"),
    *("default_hooks.logger.interval=0", "default_hooks.logger.interval=x", "default_hooks.logger=5"),
    *("default_hooks.timer=5", "default_hooks.nothing.type=Nothing", "custom_hooks=5", "custom_hooks=x"),
    *("custom_hooks=[{'type':'Nothing'}]", "custom_hooks=[5]", "custom_hooks=[{}]", "custom_hooks={'a':1}"),
    *("custom_hooks=[{'type':'subprocess.getoutput','cmd':'touch {canary}'}]",),
    *("custom_hooks=[{'type':'EMAHook','momentum':5}]", "custom_imports=5", "custom_imports.imports=nothing"),
    *("custom_imports.imports=[5]", "default_scope=nothing", "default_scope=5", "runner_type=Nothing"),
    *("env_cfg=5", "env_cfg.mp_cfg=5", "env_cfg.mp_cfg.mp_start_method=x", "env_cfg.dist_cfg=5"),
    *("log_processor=5", "log_processor.type=Nothing", "log_processor.window_size=x", "log_level=NOTHING"),
    *("log_level=5", "visualizer=5", "visualizer.type=Nothing", "vis_backends=5", "launcher=x"),
    *("visualizer.vis_backends=5", "visualizer.vis_backends=[{'type':'Nothing'}]", "randomness=5"),
    *("randomness.seed=x", "randomness.seed=-1", "randomness.nothing=1", "randomness.seed=99999999999999999999"),
    *("load_from=nowhere.pth", "load_from=5", "load_from=tiny.py", "load_from=https://127.0.0.1:9/x.pth"),
    *("resume=x", "resume=5", "embedded_dataset=5", "embedded_dataset=x", "embedded_dataset.train=0"),
    *("embedded_dataset.train=x", "embedded_dataset.train=-1", "embedded_dataset.nothing=1"),
    *("embedded_dataset.width=0", "embedded_dataset.width=x", "embedded_dataset.objects=5"),
    *("embedded_dataset.object_size=x", "embedded_dataset.classes=5", "embedded_dataset.classes=[]"),
    *("embedded_dataset.train=99999999999999999999", "embedded_dataset.width=99999999999999999999"),
    *("embedded_dataset.seed=x", "embedded_dataset.seed=-1", "embedded_dataset.classes=[a,b]"),
    *("phases=5", "phases.pretrain=5", "phases.pretrain.train_cfg=5", "sparsity=5", "sparsity=x"),
    *("sparsity.nothing=0.5", "sparsity.backbone=0.5", "work_dir=5", "model_wrapper_cfg=5"),
    *("model_wrapper_cfg.type=Nothing", "auto_scale_lr=5", "auto_scale_lr.base_batch_size=x", "compile=x"),
)  # fmt: skip
# words that are not of the form, or that lead nowhere
FORMS: tuple[str, ...] = (
    *("model", "=5", "", " ", "=", "==", ".", ".=5", "a.=5", ".a=5", "a..b=5", "model.=5", "model..backbone=5"),
    *("filename=x", "text=x", "_base_=x", "_base_=nowhere.py", "pretty_text=x", "env_variables=x"),
    *("model.backbone.depths.9=5", "model.backbone.depths.-1=5", "model.backbone.depths.x=5"),
    *("model.backbone.depths.²=5", "model.backbone.depths.１=5", "model.backbone.depths.0.0=5"),
    *("model.type.x=5", "model.backbone.embed_dims.x=5", "a" * 100_000 + "=5", "a." * 5000 + "b=5"),
    *("model.backbone.depths=[2,2", "model.backbone.depths=2,2]", "model.backbone.depths=(2,2,[2)"),
    *("model.backbone.depths=" + "[" * 3000, "model.backbone.depths=" + "[" * 3000 + "]" * 3000),
    *("model.backbone.depths=" + "9" * 5000, "model.backbone.embed_dims=" + "1" * 5000),
    *("model.backbone.depths=[" + "2," * 100_000 + "2]", "model.type=\x1b[31mx", "model.\x1b[31mx=5"),
    *("model.type=[bold]x[/bold]", "model.type=[/red]", "\x1b]0;x\x07=5", "model.type=a\x00b"[:-3]),
    *("model.type=\udcff", "model.type=\u202ex", "model.type=" + "x" * 100_000, "model.type='x"),
    *("model.type=__import__('os').system('touch {canary}')", "model.type={{ $HOME }}"),
    *("model.backbone.depths=[__import__('os').system('touch {canary}')]", "model.backbone.depths=,"),
    *("model.backbone.depths=[,]", "model.backbone.depths=()", "model.backbone.depths={'a':", "model={'a'}"),
    *("train_cfg.max_iters=1e999", "train_cfg.max_iters=0x10", "train_cfg.max_iters=²", "train_cfg.max_iters=１"),
    *("train_cfg.max_iters=1_0_", "train_cfg.max_iters= ", "train_cfg.max_iters=--1", "train_cfg.max_iters=true"),
)  # fmt: skip


def catalogue() -> list[Case]:
    cases = []
    for n, setting in enumerate(WRONG):
        words = _command(setting, n)
        # an empty dict changes nothing: dicts are merged
        legal = setting in MAY_BE_LEGAL or setting.endswith("={}")
        codes = FOUND if legal else MISTAKE
        cases.append(Case(setting[:80], (*words, "--set", setting), None, codes, writes=WRITES))
    for n, setting in enumerate(FORMS):
        words = (EVALUATE, TRAIN, EXPORT, LATENCY, ADAPT)[n % 5]
        codes = MAYBE if setting in MAY_BE_LEGAL or ("=" in setting and n % 5 > 1) else MISTAKE
        codes = (
            MAYBE if "type" not in setting and "depths" not in setting and "=" in setting else codes
        )
        cases.append(
            Case(f"{setting[:60]!a}", (*words, "--set", setting), None, codes, writes=WRITES)
        )
    return cases


# what some framework takes without a complaint, and means something
MAY_BE_LEGAL = frozenset(
    (
        *("load_from=nowhere.pth", "load_from=5", "load_from=tiny.py"),
        "load_from=https://127.0.0.1:9/x.pth",
        # of every colour
        "model.data_preprocessor.mean=[1]",
        # a square
        "train_dataloader.dataset.pipeline.2.scale=5",
        # the weights that are given come in its place
        "model.backbone.init_cfg={'type':'Pretrained'}",
        "model.backbone.init_cfg={'type':'Pretrained','checkpoint':'https://127.0.0.1:9/x.pth'}",
        *("train_cfg.val_begin=x", "optim_wrapper.optimizer.lr=nan", "model.backbone.with_cp=x"),
        *("model.backbone.qkv_bias=x", "model.backbone.patch_norm=x", "model.backbone.convert_weights=x"),
        *("val_evaluator.format_only=x", "train_dataloader.persistent_workers=x", "resume=x", "resume=5"),
        *("train_dataloader.dataset.lazy_init=x", "param_scheduler.0.by_epoch=x", "train_cfg.by_epoch=x"),
        *("optim_wrapper.clip_grad.max_norm=x", "model.test_cfg.rcnn.score_thr=x", "val_evaluator=None"),
        *("model.roi_head.bbox_head.num_classes=80", "model.backbone.mlp_ratio=0", "work_dir=5", "compile=x"),
        *("model.backbone.frozen_stages=99", "model.data_preprocessor.std=[0,0,0]", "train_dataloader={}"),
        *("model.train_cfg=None", "model.test_cfg=None", "auto_scale_lr=5", "auto_scale_lr.base_batch_size=x"),
        *("model_wrapper_cfg=5", "model_wrapper_cfg.type=Nothing", "runner_type=Nothing", "launcher=x"),
        *("model.init_cfg=5", "vis_backends=5", "model.backbone.init_cfg.type=Nothing", "optim_wrapper.clip_grad=5"),
        *("default_hooks.checkpoint.save_best=nothing", "model.backbone.type=ResNet", "model.type=RetinaNet"),
        *("train_dataloader.dataset.filter_cfg.min_size=x", "model.backbone.frozen_stages=x", "sparsity.backbone=0.5"),
        *("model.backbone.drop_path_rate=2", "model.backbone.depths=[0,0,0,0]", "default_hooks.checkpoint.interval=0"),
        *("optim_wrapper.paramwise_cfg.custom_keys.norm=5", "model.roi_head.bbox_roi_extractor.featmap_strides=x"),
        *("param_scheduler.0.end=-5", "model.backbone.window_size=[7,7]", "custom_imports.imports=nothing"),
        *("default_scope=nothing", "randomness.nothing=1", "randomness.seed=x", "randomness.seed=-1", "randomness=5"),
        *("randomness.seed=99999999999999999999", "phases.pretrain=5", "phases=5", "phases.pretrain.train_cfg=5"),
        *("model.test_cfg.rpn.nms_pre=x", "model.train_cfg.rpn.sampler.num=x", "train_dataloader.dataset.max_refetch=x"),
        *("val_cfg=5", "val_cfg.nothing=1", "val_cfg.type=Nothing", "train_dataloader.dataset.metainfo.classes=x"),
        *("model.train_cfg.rcnn=5", "model.train_cfg.rpn=5", "val_evaluator.iou_thrs=x", "val_evaluator.proposal_nums=5"),
        *("train_dataloader.prefetch_factor=-1", "env_cfg=5", "env_cfg.dist_cfg=5", "log_processor.window_size=x"),
        *("train_dataloader.dataset.indices=x", "default_hooks.checkpoint.max_keep_ckpts=x", "train_cfg.dynamic_intervals=5"),
        *("model.backbone.drop_rate=5", "model.backbone.attn_drop_rate=x", "model.data_preprocessor.pad_size_divisor=x"),
    )
)  # fmt: skip


def mutation(rng: random.Random) -> Case:
    n = rng.randrange(1000)
    known = sorted({setting.partition("=")[0] for setting in WRONG if "=" in setting})
    settings = []
    for _ in range(rng.choice([1, 1, 2])):
        key = rng.choice(known)
        parts = key.split(".")
        if rng.random() < 0.3:
            parts.append(rng.choice(["0", "x", "type", "_delete_", "-1", "99"]))
        if rng.random() < 0.2 and len(parts) > 1:
            parts.pop()
        settings.append(f"{'.'.join(parts)}={_value(rng)}")
    words = _command(settings[0], n)
    more = tuple(itertools.chain.from_iterable(("--set", one) for one in settings))
    return Case(" ".join(settings)[:80], (*words, *more), None, FOUND, writes=WRITES)


def _value(rng: random.Random) -> str:
    plain = rng.choice(
        [
            *("5", "-1", "0", "1.5", "nan", "inf", "x", "", "None", "true", "[]", "{}", "()"),
            *("[1,2]",),
            *("1,2,3", "{'type':'Nothing'}", "{'type':5}", "[{}]", "[None]", "'5'", "1e999"),
            *("[[1],[2]]",),
            *("{'_delete_':True}", "{'_delete_':True,'type':'CocoDataset'}", "(1,)", "nowhere"),
            *("1e-300",),
        ]
    )  # fmt: skip
    value = mutate.value(rng) if rng.random() < 0.2 else plain
    if isinstance(value, int) and abs(value) > 10**300:
        value = "9" * 5000
    # an argument of a process ends at a NUL, and has a length
    return str(value).replace("\x00", "")[:100_000]


def _command(setting: str, n: int) -> tuple[str, ...]:
    top = setting.partition("=")[0].split(".")[0]
    if top in ("val_evaluator", "val_dataloader"):
        return EVALUATE
    if setting.startswith(("model.backbone", "model.neck", "model.type")):
        return (TRAIN, EVALUATE, LATENCY, ADAPT)[n % 4] if "=" in setting else TRAIN
    if setting.startswith(("model.test_cfg", "model.data_preprocessor")):
        return EVALUATE
    return (TRAIN, TRAIN, ADAPT)[n % 3]
