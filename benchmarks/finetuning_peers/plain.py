"""Training as it is often written: AdamW, one cycle, flips, crops. DATA WEIGHTS SECONDS SEED OUT [SIZE NETWORK RATE]"""

import sys
import time

import common
import timm
import torch
from torch.nn.functional import cross_entropy
from torchvision import transforms as T
from torchvision.datasets import ImageFolder

SIZE, NETWORK, RATE = sys.argv[6:] or ("128", "tf_efficientnet_lite0", "3e-4")
SIZE, RATE, BATCH = int(SIZE), float(RATE), 32
tail = [T.ToTensor(), T.Normalize([0.5] * 3, [0.5] * 3)]
crop = T.RandomResizedCrop(SIZE, scale=(0.35, 1))
train = ImageFolder(f"{common.DATA}/train", T.Compose([crop, T.RandomHorizontalFlip(), *tail]))
test = ImageFolder(f"{common.DATA}/test", T.Compose([T.Resize(SIZE * 9 // 8), T.CenterCrop(SIZE), *tail]))
make = timm.create_model if NETWORK in timm.list_models() else common.ours
model = common.begin(make(NETWORK, num_classes=len(train.classes)))
loader = torch.utils.data.DataLoader(train, BATCH, shuffle=True, drop_last=True, num_workers=1)
steps = common.steps_that_fit(model, loader, test)
optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.05)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
step, began = 0, time.time()
while not common.time_is_up(step, steps, began, test, BATCH):
    for pictures, labels in loader:
        optimizer.zero_grad()
        cross_entropy(model(pictures.to(memory_format=torch.channels_last)), labels).backward()
        optimizer.step()
        schedule.step()
        step += 1
        if common.time_is_up(step, steps, began, test, BATCH):
            break
common.write_answers(model, test)
