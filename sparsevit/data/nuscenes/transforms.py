"""The pipeline of BEVDet: six images with their geometry, augmented in the image and from above.

Names and arguments are those of BEVDet's first release, so that its configs read the same here. Two
augmentations stand apart (arXiv:2112.11790, section 3.2). That of an image moves pixels;
``post_rots`` and ``post_trans`` say how, so that a pixel can be taken back. That from above moves
the boxes, and the cameras with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS
from mmdet.structures import DetDataSample
from mmengine.registry import FUNCTIONS
from mmengine.structures import InstanceData
from PIL import Image

from sparsevit.data.images import image_fault
from sparsevit.errors import UserError

INPUTS = ("imgs", "rots", "trans", "intrins", "post_rots", "post_trans")
_META = ("sample_token", "img_path", "img_paths", "cameras", "intrinsics", "cam2lidar")
_EVALUATED = ("lidar2ego", "ego2global", "annotations")


@TRANSFORMS.register_module(name=["LoadMultiViewImageFromFiles_BEVDet"])
class LoadMultiViewImageFromFiles(BaseTransform):
    """Loads the images of a sample, each resized, cropped, flipped and turned by itself.

    Adds ``imgs`` (N, 3, H, W) uint8 RGB, and float32 ``rots`` (N, 3, 3) and ``trans`` (N, 3) from a
    camera's frame to the lidar's, ``intrins`` (N, 3, 3), ``post_rots`` (N, 3, 3) and ``post_trans``
    (N, 3) from a pixel of the file to one of the input.

    Args:
        data_config: ``cams``, names of cameras in their order; ``Ncams``, how many of them are
            drawn for training; ``input_size``, (height, width); ``resize``, lowest and highest
            number added to the scale in training; ``resize_test``, that in testing; ``rot``, lowest
            and highest angle in degrees; ``flip``, whether half of the images are mirrored;
            ``crop_h``, lowest and highest share that is cut off below.
        is_train: draw, rather than take the middle.

    Raises:
        UserError: an image cannot be read.
    """

    def __init__(self, data_config: Mapping[str, Any], is_train: bool = False) -> None:
        self.data_config, self.is_train = data_config, is_train

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        wanted = self.data_config
        cameras = list(wanted["cams"])
        if self.is_train and wanted.get("Ncams", len(cameras)) < len(cameras):
            cameras = list(np.random.choice(cameras, wanted["Ncams"], replace=False))
        places = [list(results["cameras"]).index(name) for name in cameras]
        loaded = [self._load(results["img_paths"][place]) for place in places]
        cam2lidar = torch.as_tensor(results["cam2lidar"][places], dtype=torch.float32)
        results["imgs"] = torch.stack([image for image, _, _ in loaded])
        results["rots"] = cam2lidar[:, :3, :3].contiguous()
        results["trans"] = cam2lidar[:, :3, 3].contiguous()
        results["intrins"] = torch.as_tensor(results["intrinsics"][places], dtype=torch.float32)
        results["post_rots"] = torch.stack([rotation for _, rotation, _ in loaded])
        results["post_trans"] = torch.stack([translation for _, _, translation in loaded])
        return results

    def _load(self, path: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        try:
            with Image.open(path) as file:
                image = file.convert("RGB")
        except (OSError, ValueError, SyntaxError) as error:
            wrong = image_fault(path, whole=True) or f"cannot be read: {error}"
            raise UserError(f"{path} {wrong}.", "Replace the image, or unpack it again.") from None
        drawn = self._draw(*image.size)
        pixels = np.array(changed(image, *drawn))
        rotation, translation = pixel_matrix(*drawn)
        post_rot, post_tran = torch.eye(3), torch.zeros(3)
        post_rot[:2, :2] = torch.from_numpy(rotation)
        post_tran[:2] = torch.from_numpy(translation)
        return torch.from_numpy(pixels).permute(2, 0, 1).contiguous(), post_rot, post_tran

    def _draw(
        self, width: int, height: int
    ) -> tuple[float, tuple[int, int], tuple[int, int, int, int], bool, float]:
        """What :func:`changed` and :func:`pixel_matrix` take, of an image of this size."""
        wanted = self.data_config
        input_height, input_width = wanted["input_size"]
        scale, below, flip, degrees = input_width / width, wanted["crop_h"], False, 0.0
        if self.is_train:
            scale += np.random.uniform(*wanted["resize"])
            low = np.random.uniform(*below)
        else:
            scale += wanted.get("resize_test", 0.0)
            low = float(np.mean(below))
        new_width, new_height = int(width * scale), int(height * scale)
        spare = max(0, new_width - input_width)
        left = int(np.random.uniform(0, spare)) if self.is_train else int(spare / 2)
        if self.is_train:
            flip = bool(wanted["flip"] and np.random.choice([0, 1]))
            degrees = float(np.random.uniform(*wanted["rot"]))
        top = int((1 - low) * new_height) - input_height
        crop = (left, top, left + input_width, top + input_height)
        return scale, (new_width, new_height), crop, flip, degrees


def changed(
    image: Image.Image,
    scale: float,
    resized: tuple[int, int],
    crop: tuple[int, int, int, int],
    flip: bool,
    degrees: float,
) -> Image.Image:
    """An image resized to (width, height), cropped to (left, top, right, bottom), mirrored, and
    turned about its middle, counter-clockwise. What is outside is black."""
    image = image.resize(resized).crop(crop)
    if flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image.rotate(degrees)


def pixel_matrix(
    scale: float,
    resized: tuple[int, int],
    crop: tuple[int, int, int, int],
    flip: bool,
    degrees: float,
) -> tuple[np.ndarray, np.ndarray]:
    """What :func:`changed` does to a pixel (x, y): its (2, 2) matrix and (2,) shift, float32."""
    left, top, right, bottom = crop
    size = np.array([right - left, bottom - top], np.float64)
    matrix, shift = scale * np.eye(2), -np.array([left, top], np.float64)
    if flip:
        mirror = np.diag([-1.0, 1.0])
        matrix, shift = mirror @ matrix, mirror @ shift + [size[0], 0]
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    matrix, shift = turn @ matrix, turn @ (shift - size / 2) + size / 2
    return matrix.astype(np.float32), shift.astype(np.float32)


def move_scene(results: dict[str, Any], matrix: np.ndarray) -> None:
    """Moves a sample seen from above: its boxes, and its cameras with them.

    Args:
        results: with ``gt_bboxes_3d``, ``rots``, ``trans``; changed.
        matrix: (4, 4): a turn about z, a reflection in x or y, a scale, a shift.
    """
    move = torch.as_tensor(matrix, dtype=torch.float32)
    results["rots"] = move[:3, :3] @ results["rots"]
    results["trans"] = results["trans"] @ move[:3, :3].T + move[:3, 3]
    results["gt_bboxes_3d"] = moved_boxes(results["gt_bboxes_3d"], matrix)
    results["bev_augmentation"] = matrix @ results.get("bev_augmentation", np.eye(4))


def moved_boxes(boxes: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """(n, 9) rows after a move; see :func:`move_scene`."""
    moved = boxes.astype(np.float64)
    flat = matrix[:2, :2]
    scale = float(np.sqrt(abs(np.linalg.det(flat))))
    moved[:, :3] = moved[:, :3] @ matrix[:3, :3].T + matrix[:3, 3]
    moved[:, 3:6] *= scale
    moved[:, 7:9] = moved[:, 7:9] @ flat.T
    heading = -boxes[:, 6].astype(np.float64) - np.pi / 2
    ahead = np.stack([np.cos(heading), np.sin(heading)], axis=1) @ flat.T
    moved[:, 6] = within_half_turn(-np.arctan2(ahead[:, 1], ahead[:, 0]) - np.pi / 2)
    return moved.astype(np.float32)


def within_half_turn(angles: np.ndarray) -> np.ndarray:
    """The same angles in [-pi, pi)."""
    turned: np.ndarray = (angles + np.pi) % (2 * np.pi) - np.pi
    return turned


@TRANSFORMS.register_module()
class GlobalRotScaleTrans(BaseTransform):
    """Turns, scales and shifts a sample seen from above.

    Args:
        rot_range: least and greatest angle in radians, clockwise.
        scale_ratio_range: least and greatest scale.
        translation_std: of a shift along x, y and z, in metres.
        update_img2lidar: as in BEVDet's configs; the cameras always move along.
    """

    def __init__(
        self,
        rot_range: Sequence[float] = (-0.3925, 0.3925),
        scale_ratio_range: Sequence[float] = (0.95, 1.05),
        translation_std: Sequence[float] = (0, 0, 0),
        update_img2lidar: bool = True,
    ) -> None:
        self.rot_range, self.scale_ratio_range = rot_range, scale_ratio_range
        self.translation_std = translation_std

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        angle = np.random.uniform(self.rot_range[0], self.rot_range[1])
        scale = np.random.uniform(self.scale_ratio_range[0], self.scale_ratio_range[1])
        cosine, sine = scale * np.cos(angle), scale * np.sin(angle)
        matrix = np.diag([1, 1, scale, 1.0])
        matrix[:2, :2] = [[cosine, sine], [-sine, cosine]]
        matrix[:3, 3] = np.random.normal(scale=self.translation_std)
        move_scene(results, matrix)
        return results


@TRANSFORMS.register_module()
class RandomFlip3D(BaseTransform):
    """Mirrors a sample seen from above.

    Args:
        flip_ratio_bev_horizontal: how often y changes its sign.
        flip_ratio_bev_vertical: how often x does.
        sync_2d, update_img2lidar: as in BEVDet's configs: images are never mirrored along, the
            cameras always move along.
    """

    def __init__(
        self,
        flip_ratio_bev_horizontal: float = 0.5,
        flip_ratio_bev_vertical: float = 0.5,
        sync_2d: bool = False,
        update_img2lidar: bool = True,
    ) -> None:
        self.ratios = (flip_ratio_bev_vertical, flip_ratio_bev_horizontal)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        signs = [-1.0 if np.random.rand() < ratio else 1.0 for ratio in self.ratios]
        move_scene(results, np.diag([*signs, 1.0, 1.0]))
        return results


@TRANSFORMS.register_module()
class ObjectRangeFilter(BaseTransform):
    """Leaves out boxes whose centre is outside, seen from above.

    Args:
        point_cloud_range: x, y, z from, x, y, z to, in metres.
    """

    def __init__(self, point_cloud_range: Sequence[float]) -> None:
        self.low, self.high = np.array(point_cloud_range, np.float32).reshape(2, 3)[:, :2]

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        centres = results["gt_bboxes_3d"][:, :2]
        _keep(results, ((centres > self.low) & (centres < self.high)).all(axis=1))
        return results


@TRANSFORMS.register_module()
class ObjectNameFilter(BaseTransform):
    """Leaves out boxes of no class.

    Args:
        classes: as in BEVDet's configs; the labels that the dataset gave count.
    """

    def __init__(self, classes: Sequence[str] = ()) -> None:
        self.classes = classes

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        _keep(results, results["gt_labels_3d"] >= 0)
        return results


def _keep(results: dict[str, Any], which: np.ndarray) -> None:
    for key in ("gt_bboxes_3d", "gt_labels_3d"):
        results[key] = results[key][which]


@TRANSFORMS.register_module()
class Pack3DDetInputs(BaseTransform):
    """A sample as models take it: ``inputs``, a dict of :data:`INPUTS`, and ``data_samples``, a
    ``DetDataSample`` with ``gt_instances_3d`` (``bboxes_3d`` (n, 9) float32, ``labels_3d`` (n,)).

    Its metainfo has the sample's token, images, cameras, ``lidar2ego``, ``ego2global``,
    ``bev_augmentation`` (4, 4) and, for the metric, ``annotations``.
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        sample = DetDataSample()
        sample.gt_instances_3d = InstanceData(
            bboxes_3d=torch.as_tensor(results["gt_bboxes_3d"], dtype=torch.float32).reshape(-1, 9),
            labels_3d=torch.as_tensor(results["gt_labels_3d"], dtype=torch.int64),
        )
        meta = {key: results[key] for key in (*_META, *_EVALUATED)}
        meta["bev_augmentation"] = results.get("bev_augmentation", np.eye(4))
        sample.set_metainfo(meta)
        return {"inputs": {key: results[key] for key in INPUTS}, "data_samples": sample}


@FUNCTIONS.register_module()
def collate_samples(
    batch: Sequence[Mapping[str, Any]], _scope_: str | None = None
) -> dict[str, list[Any]]:
    """A batch as lists by sample: ``dict(inputs=[...], data_samples=[...])``.

    mmengine's ``pseudo_collate`` would make one dict of lists of what are dicts here.

    Args:
        batch: samples.
        _scope_: which mmengine writes into all that a config inherits by name; makes no difference.
    """
    return {key: [sample[key] for sample in batch] for key in batch[0]}
