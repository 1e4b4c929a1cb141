"""BEVDet, under the names, arguments and ``state_dict`` keys of its first release
(github.com/HuangJunJie2017/BEVDet)."""

from sparsevit.models.bev.coder import CenterPointBBoxCoder
from sparsevit.models.bev.detector import BEVDet
from sparsevit.models.bev.encoders import FPN_LSS, ResNetForBEVDet
from sparsevit.models.bev.head import CenterHead, SeparateHead
from sparsevit.models.bev.preprocessor import BEVDataPreprocessor
from sparsevit.models.bev.view_transformer import Cameras, ViewTransformerLiftSplatShoot

__all__ = [
    "FPN_LSS",
    "BEVDataPreprocessor",
    "BEVDet",
    "Cameras",
    "CenterHead",
    "CenterPointBBoxCoder",
    "ResNetForBEVDet",
    "SeparateHead",
    "ViewTransformerLiftSplatShoot",
]
