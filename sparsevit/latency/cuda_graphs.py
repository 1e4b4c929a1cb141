"""CUDA graphs of a sparse backbone: its launches recorded once, and replayed as one.

At batch 1 a sparse backbone on a fast GPU waits for Python, which launches a few hundred small
kernels a forward. How many windows a configuration keeps follows from sizes alone, so all the
shapes of a forward are known beforehand, and it can be recorded: one graph for each configuration,
image shape and dtype.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Outputs = list[Tensor]
Forward = Callable[[Tensor], Sequence[Tensor]]

WARMUP = 3


@dataclass(frozen=True)
class GraphKey:
    """What a recorded forward holds for; anything else needs another recording.

    Attributes:
        configuration: the ratios, or None of a backbone that has none.
        rank_over: which windows are ranked together, or None of a backbone without windows.
        shape, dtype, device: of the images.
        addresses: where the parameters are in memory. Loading weights leaves them there; moving or
            converting the backbone does not.
    """

    configuration: Any
    rank_over: Any
    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    addresses: tuple[int, ...]


class GraphedBackbone:
    """A backbone that replays its forward on CUDA in inference, and runs as it is elsewhere.

    ``outs = GraphedBackbone(backbone)(images)``, or for a whole detector, whose weights and keys
    stay as they are::

        detector.backbone.forward = GraphedBackbone(detector.backbone)

    The first forward of a configuration, shape and dtype warms up and records, which takes as long
    as some eager ones. Each graph keeps the memory of its activations, so ``capacity`` bounds them:
    the one that was used longest ago goes first. In training, with gradients on, under autocast and
    on a CPU the backbone runs eagerly.

    What is recorded does not look at Python again: ``record_selections`` sees nothing of a replay,
    and after a change that no :class:`GraphKey` shows (``SPARSEVIT_KERNELS``, TF32, parameters that
    were replaced and not merely loaded) call :meth:`clear`.

    Args:
        backbone: (B, 3, H, W) images -> a sequence of tensors, without asking the device anything.
            Its ``get_sparsity()``, where it has one, is part of the key.
        capacity: graphs to keep, at least 1.
        copy_outputs: whether results are copied out of the graph's memory. Without, the next replay
            of the same graph overwrites them.
        record: how a forward is recorded; see :func:`record_graph`.

    Raises:
        ValueError: ``capacity`` is below 1.
    """

    def __init__(
        self,
        backbone: nn.Module,
        capacity: int = 8,
        *,
        copy_outputs: bool = True,
        record: Callable[[Forward, Tensor, Any], Callable[[Tensor], Outputs]] | None = None,
    ) -> None:
        if capacity < 1:
            raise ValueError(f"capacity={capacity}: at least one graph has to be kept.")
        self.backbone = backbone
        self.capacity = capacity
        self.copy_outputs = copy_outputs
        # taken now, so that this object may become the backbone's own forward
        self._forward: Forward = backbone.forward
        self._record = record or record_graph
        self._parameters = list(backbone.parameters())
        self._graphs: OrderedDict[GraphKey, Callable[[Tensor], Outputs]] = OrderedDict()

    def __call__(self, images: Tensor) -> Outputs:
        """(B, 3, H, W) images -> the backbone's outputs."""
        if not self.can_replay(images):
            return list(self._forward(images))
        outputs = self._graph(images)(images)
        return [output.clone() for output in outputs] if self.copy_outputs else outputs

    def __len__(self) -> int:
        """Graphs that are kept now."""
        return len(self._graphs)

    def clear(self) -> None:
        """Forget all graphs and free their memory."""
        self._wait()
        self._graphs.clear()

    def can_replay(self, images: Tensor) -> bool:
        """Whether a forward of these images may come from a graph."""
        return (
            images.is_cuda
            and not self.backbone.training
            and not torch.is_grad_enabled()
            and not torch.is_autocast_enabled()
            and not torch.cuda.is_current_stream_capturing()
        )

    def key(self, images: Tensor) -> GraphKey:
        """What the graph of these images is kept under, as the backbone is set now."""
        get_sparsity = getattr(self.backbone, "get_sparsity", None)
        return GraphKey(
            configuration=None if get_sparsity is None else get_sparsity(),
            rank_over=getattr(self.backbone, "rank_over", None),
            shape=tuple(images.shape),
            dtype=images.dtype,
            device=images.device,
            addresses=tuple(parameter.data_ptr() for parameter in self._parameters),
        )

    def _graph(self, images: Tensor) -> Callable[[Tensor], Outputs]:
        key = self.key(images)
        if key in self._graphs:
            self._graphs.move_to_end(key)
            return self._graphs[key]
        if len(self._graphs) >= self.capacity:
            # its memory may be given to others at once, so it must have run to its end
            self._wait()
        while len(self._graphs) >= self.capacity:
            self._graphs.popitem(last=False)
        graph = self._record(self._forward, images, self._watch())
        self._graphs[key] = graph
        return graph

    def _watch(self) -> Any:
        """A context whose list gets what the forward reads and does not own: index tables, which
        live in caches and have to outlive the graph."""
        watch = getattr(self.backbone, "record_selections", None)
        return nullcontext([]) if watch is None else watch()

    def _wait(self) -> None:
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            torch.cuda.synchronize()


def record_graph(forward: Forward, images: Tensor, watch: Any) -> Replay:
    """Record a forward on CUDA.

    Args:
        forward: what to record.
        images: an example; its values do not matter.
        watch: a context whose value is a list of what has to live as long as the graph.

    Returns:
        A replay: images of the same shape, dtype and device -> outputs.
    """
    # tensors of inference mode could not be written to outside of it, and these live on
    with torch.inference_mode(False), torch.no_grad(), torch.cuda.device(images.device):
        given = torch.empty_like(images, memory_format=torch.contiguous_format)
        given.copy_(images)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream), watch as held:
            for _ in range(WARMUP):
                forward(given)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = list(forward(given))
    return Replay(graph, given, outputs, list(held))


@dataclass(frozen=True, eq=False)
class Replay:
    """A recorded forward.

    Attributes:
        graph: what CUDA recorded.
        given: the images it reads.
        outputs: the tensors it writes, the same each time.
        held: what else it reads, kept alive by being here.
    """

    graph: torch.cuda.CUDAGraph
    given: Tensor
    outputs: Outputs
    held: list[Any]

    def __call__(self, images: Tensor) -> Outputs:
        with torch.no_grad():
            self.given.copy_(images)
        self.graph.replay()
        return self.outputs
