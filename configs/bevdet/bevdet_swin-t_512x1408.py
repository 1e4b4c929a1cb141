# The same at 512x1408: where a sparse model starts that is to be as fast as one at 256x704.
_base_ = "./bevdet_swin-t.py"

data_config = dict(
    cams=[
        "CAM_FRONT_LEFT",
        "CAM_FRONT",
        "CAM_FRONT_RIGHT",
        "CAM_BACK_LEFT",
        "CAM_BACK",
        "CAM_BACK_RIGHT",
    ],
    Ncams=6,
    input_size=(512, 1408),
    src_size=(900, 1600),
    resize=(-0.06, 0.11),
    rot=(-5.4, 5.4),
    flip=True,
    crop_h=(0.0, 0.0),
    resize_test=0.04,
)
model = dict(img_view_transformer=dict(data_config=data_config))

train_pipeline = [
    dict(type="LoadMultiViewImageFromFiles_BEVDet", is_train=True, data_config=data_config),
    dict(
        type="GlobalRotScaleTrans",
        rot_range=[-0.3925, 0.3925],
        scale_ratio_range=[0.95, 1.05],
        translation_std=[0, 0, 0],
    ),
    dict(type="RandomFlip3D", flip_ratio_bev_horizontal=0.5, flip_ratio_bev_vertical=0.5),
    dict(type="ObjectRangeFilter", point_cloud_range=[-51.2, -51.2, -5.0, 51.2, 51.2, 3.0]),
    dict(type="ObjectNameFilter"),
    dict(type="Pack3DDetInputs"),
]
test_pipeline = [
    dict(type="LoadMultiViewImageFromFiles_BEVDet", data_config=data_config),
    dict(type="Pack3DDetInputs"),
]
train_dataloader = dict(batch_size=4, dataset=dict(dataset=dict(pipeline=train_pipeline)))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
