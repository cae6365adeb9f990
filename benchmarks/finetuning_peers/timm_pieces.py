"""timm's own pieces as its training script joins them, usual settings. DATA WEIGHTS SECONDS SEED OUT"""

import time

import common
import timm
import torch
from timm.data import Mixup, create_transform
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torchvision.datasets import ImageFolder

SIZE, BATCH = 128, 32
look = {"input_size": (3, SIZE, SIZE), "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"}
augment = create_transform(**look, is_training=True, auto_augment="rand-m7-mstd0.5-inc1", scale=(0.35, 1.0))
train = ImageFolder(f"{common.DATA}/train", augment)
test = ImageFolder(f"{common.DATA}/test", create_transform(**look, crop_pct=0.875))
model = timm.create_model("tf_efficientnet_lite0", num_classes=len(train.classes), drop_rate=0.2, drop_path_rate=0.1)
model = common.begin(model)
loader = torch.utils.data.DataLoader(train, BATCH, shuffle=True, drop_last=True, num_workers=1)
steps = common.steps_that_fit(model, loader, test)
optimizer = create_optimizer_v2(model, opt="adamw", lr=5e-4, weight_decay=0.05, layer_decay=0.75)
schedule = CosineLRScheduler(optimizer, steps, warmup_t=steps // 10, warmup_lr_init=1e-6, t_in_epochs=False)
mixup = Mixup(mixup_alpha=0.2, label_smoothing=0.1, num_classes=len(train.classes))
loss, average = SoftTargetCrossEntropy(), ModelEmaV3(model, decay=0.998, use_warmup=True)
step, began = 0, time.time()
while not common.time_is_up(step, steps, began, test, BATCH):
    for pictures, labels in loader:
        schedule.step_update(step)
        optimizer.zero_grad()
        pictures, targets = mixup(pictures, labels)
        loss(model(pictures.to(memory_format=torch.channels_last)), targets).backward()
        optimizer.step()
        average.update(model, step=step)
        step += 1
        if common.time_is_up(step, steps, began, test, BATCH):
            break
common.write_answers(average.module, test)
