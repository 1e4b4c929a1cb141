"""Connections of attention as a method: knobs by layer, conversion, and how predictors are trained.

A training has two stages (Sparsifiner, section 3.4). In the first only the predictors learn what
dense attention looks like, and attention stays dense. In the second all else learns to do with the
connections that they choose; the model as it was at the start is its teacher.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsevit.errors import UserError
from sparsevit.methods.attention.convert import connect
from sparsevit.methods.attention.explain import watched
from sparsevit.methods.attention.predictor import MaskPredictor, require
from sparsevit.methods.base import Method
from sparsevit.sparsity.configuration import DECIMALS, Configuration, Knob, to_ratio
from sparsevit.sparsity.handle import ATTACHED, sparse_parts
from sparsevit.sparsity.space import Space

PREDICTOR = "mask_predictor."
"""What names of weights of a predictor have in them."""

IMAGES, TOKENS, LOGITS, KEPT = "images", "tokens", "logits", "kept"


@dataclass(frozen=True)
class Recipe:
    """How a training goes.

    Attributes:
        first_stage: share of the iterations in which only the predictors learn; 5 of the paper's 50
            epochs.
        reconstruction: weight of the squared error to dense attention, summed over all pairs, in
            the first stage.
        distill_logits: weight of the divergence of the class logits from the teacher's, in the
            second.
        distill_tokens: likewise, of the mean squared error of the last layer's tokens.

    Raises:
        UserError: a value is none of these.
    """

    first_stage: float = 0.1
    reconstruction: float = 0.01
    distill_logits: float = 0.5
    distill_tokens: float = 0.5

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            require(
                number and value >= 0,
                f"{name}={value!r} is not a number from 0 up.",
                "Give one, such as 0.5.",
            )
        require(
            self.first_stage <= 1,
            f"first_stage={self.first_stage!r} is above 1.",
            "It is the share of the iterations in which only the predictors learn, such as 0.1.",
        )

    @property
    def distills(self) -> bool:
        """Whether the second stage has a teacher."""
        return bool(self.distill_logits or self.distill_tokens)


class Connections(Method):
    """The keys that a query attends to, chosen for each image (Sparsifiner, arXiv 2303.13755)."""

    name = "connections"
    backbones = ("Sparsifiner", "SparsifinerDeiT")
    module = "sparsevit.models.sparsifiner_backbones"

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.part: SparseConnections = next(iter(self.parts().values()))
        self._iterations = 0
        self._teacher: nn.Module | None = None
        self._frozen: list[nn.Parameter] = []
        self._seen: dict[str, Any] = {}

    # --- what becomes sparse --------------------------------------------------------------------

    @classmethod
    def convert(cls, model: nn.Module, **options: Any) -> nn.Module:
        """Give every attention of a vision transformer a predictor of its connections, in place.

        The names of its weights stay; each predictor adds its own. They have to be trained: at the
        start they are random.

        Args:
            model: a DeiT of mmpretrain (``VisionTransformer``, or a classifier with one) or timm.
            **options: ``keep_rate``, the share of the keys that a query keeps, by layer where it is
                a list (0.25 where left out), what
                :class:`~sparsevit.methods.attention.predictor.MaskPredictor` takes, and those of
                :class:`SparseConnections`.

        Raises:
            UserError: the model has no attention that is known, or an option does not suit it.
        """
        own = ("choices", *Recipe.__dataclass_fields__)
        holder, predictors = connect(model, **{k: v for k, v in options.items() if k not in own})
        part = SparseConnections(predictors, **{k: v for k, v in options.items() if k in own})
        setattr(holder, ATTACHED, part)
        return model

    # --- training -------------------------------------------------------------------------------

    def before_training(self, iterations: int, seed: int) -> None:
        self._iterations = iterations
        if not self.from_weights:
            # there is nothing to learn from yet: the model that others will be taught by is trained
            self.part.set_sparsity(self.part.sparsity_space().dense())
        if not (self.part.recipe.distills and self.from_weights):
            return
        backbone, head = (getattr(self.model, name, None) for name in ("backbone", "head"))
        if backbone is None or head is None:
            raise UserError(
                f"{type(self.model).__name__} is no classifier, so there are no logits to distil.",
                "Train an ImageClassifier, or set distill_logits=0 and distill_tokens=0.",
            )
        teacher = copy.deepcopy(self.model)
        teacher.eval()
        teacher.requires_grad_(False)
        for part in sparse_parts(teacher).values():
            part.set_sparsity(part.sparsity_space().dense())
        block: Any
        for block in teacher.modules():
            if hasattr(block, "kept_patches"):
                block.kept_patches = None
        self._teacher = teacher
        self._listen(self.model, self._seen)

    def before_step(self, step: int) -> None:
        first = self.from_weights and step < round(self.part.recipe.first_stage * self._iterations)
        if first and not self._frozen:
            self._frozen = [
                parameter
                for name, parameter in self.model.named_parameters()
                if PREDICTOR not in name and parameter.requires_grad
            ]
            for parameter in self._frozen:
                parameter.requires_grad_(False)
        elif not first and self._frozen:
            for parameter in self._frozen:
                parameter.requires_grad_(True)
            self._frozen = []
        for predictor in self.part.predictors.values():
            predictor.learns = first

    def extra_loss(self) -> dict[str, Tensor]:
        recipe = self.part.recipe
        predictors = list(self.part.predictors.values())
        if predictors[0].learns:
            errors = [one.error for one in predictors if one.error is not None]
            for one in predictors:
                # a copy of the model would not take a result of a graph; and what is validated
                # before the next step is sparse
                one.error, one.learns = None, False
            return {"reconstruction": recipe.reconstruction * torch.stack(errors).mean()}
        if self._teacher is None or not self._seen:
            return {}
        seen = dict(self._seen)
        self._seen.clear()
        taught = self._taught(seen[IMAGES])
        losses = {}
        if recipe.distill_logits:
            student, teacher = (F.log_softmax(one[LOGITS].float(), -1) for one in (seen, taught))
            divergence = F.kl_div(student, teacher, reduction="batchmean", log_target=True)
            losses["logits"] = recipe.distill_logits * divergence
        if recipe.distill_tokens:
            theirs, kept = taught[TOKENS], seen.get(KEPT)
            if kept is not None:
                theirs = theirs.gather(1, kept.unsqueeze(-1).expand(-1, -1, theirs.shape[-1]))
            error = F.mse_loss(seen[TOKENS].float(), theirs.float())
            losses["tokens"] = recipe.distill_tokens * error
        return losses

    def state_dict(self) -> dict[str, Any]:
        """The teacher's weights, without its predictors."""
        if self._teacher is None:
            return {}
        return {"teacher": {n: w for n, w in self._teacher.state_dict().items() if _kept(n)}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take what :meth:`state_dict` gave.

        Raises:
            UserError: the teacher is another model.
        """
        if self._teacher is None or "teacher" not in state:
            return
        wanted = {n: w.shape for n, w in self._teacher.state_dict().items() if _kept(n)}
        if wanted != {n: w.shape for n, w in state["teacher"].items()}:
            raise UserError(
                "The checkpoint's teacher is another model than the one that is trained.",
                "Resume with the config that the run was begun with.",
            )
        self._teacher.load_state_dict(state["teacher"], strict=False)

    # --- what it looks like ---------------------------------------------------------------------

    def picture(self, image: Tensor, pixels: Any, out: Path) -> Path | None:
        from sparsevit.methods.attention.picture import draw_kept_keys

        holder = next(iter(self.parts()))
        with watched(self.part.predictors.values()) as seen, torch.no_grad():
            self.model.get_submodule(holder)(image)
        masks = {n: m[0] for n, m in zip(self.part.predictors, seen.masks, strict=True)}
        return draw_kept_keys(pixels, masks, out)

    # --- the teacher ----------------------------------------------------------------------------

    def _taught(self, images: Tensor) -> dict[str, Any]:
        teacher: Any = self._teacher
        heard: dict[str, Any] = {}
        handles = self._listen(teacher, heard)
        with torch.no_grad():
            teacher.head(teacher.backbone(images))
        for handle in handles:
            handle.remove()
        return heard

    def _listen(self, model: Any, into: dict[str, Any]) -> list[Any]:
        """Note what a classifier is given and gives; of the trained one in training alone."""
        norm = _last_norm(model.backbone)
        # the model outlives its training
        method = weakref.ref(self)

        def hears() -> bool:
            one = method()
            return one is not None and (model is not one.model or model.training)

        def note(name: str, module: nn.Module, given: Any, out: Any = None) -> None:
            if hears():
                into[name] = given[0] if out is None else out

        def note_kept(block: nn.Module, given: Any, out: Any) -> None:
            if hears() and isinstance(out, tuple) and out[1] is not None:
                into[KEPT] = out[1]

        last = getattr(model.backbone, "blocks", [norm])[-1]
        return [
            model.backbone.register_forward_pre_hook(partial(note, IMAGES)),
            norm.register_forward_hook(partial(note, TOKENS)),
            model.head.register_forward_hook(partial(note, LOGITS)),
            last.register_forward_hook(note_kept),
        ]


def _kept(name: str) -> bool:
    return PREDICTOR not in name


def _last_norm(backbone: Any) -> nn.Module:
    """What normalises the last layer's tokens."""
    for name in ("ln1", "norm"):
        with suppress(AttributeError):
            found: nn.Module = getattr(backbone, name)
            return found
    raise UserError(
        f"{type(backbone).__name__} has no norm behind its last layer, so there are no tokens to "
        "distil.",
        "Leave final_norm of the backbone at True.",
    )


class SparseConnections:
    """The knobs of a vision transformer with predictors, which carries it: a layer's ratio is the
    share of the keys that its queries leave out.

    Args:
        predictors: by the name of their layer.
        choices: ratios that ``adapt`` may draw and ``search`` may choose for every layer; None for
            those alone that the layers have now.
        **recipe: of a :class:`Recipe`.

    Attributes:
        predictors: as given.

    Raises:
        UserError: a choice is no ratio, or the recipe is wrong.
    """

    sparsity_method = Connections

    def __init__(
        self,
        predictors: Mapping[str, MaskPredictor],
        choices: Sequence[float] | None = None,
        **recipe: Any,
    ) -> None:
        self.predictors = dict(predictors)
        self.recipe = Recipe(**recipe)
        own = {name: (_ratio(one),) for name, one in self.predictors.items()}
        given = tuple(to_ratio(one, "A choice of connections") for one in choices or ())
        self._choices = own if choices is None else dict.fromkeys(own, given)

    def sparsity_space(self) -> Space:
        """A knob for each layer."""
        return Space(Knob(name, name, ratios) for name, ratios in self._choices.items())

    def get_sparsity(self) -> Configuration:
        """The share that each layer leaves out."""
        return Configuration({name: _ratio(one) for name, one in self.predictors.items()})

    def set_sparsity(self, configuration: Configuration) -> None:
        """Leave out these shares from now on."""
        for name, ratio in configuration.items():
            self.predictors[name].keep_rate = round(1 - ratio, DECIMALS)


def _ratio(predictor: MaskPredictor) -> float:
    return round(1 - predictor.keep_rate, DECIMALS)
