"""The rules of judging boxes told one box at a time, without a thought for speed; and small scenes to judge."""

import numpy as np
import torch

from tubelet.data.datasets.tubes import Tube, Tubes
from tubelet.evaluation.detections import as_detections


def iou(a, b, pixel=0):
    w = min(a[2], b[2]) - max(a[0], b[0]) + pixel
    h = min(a[3], b[3]) - max(a[1], b[1]) + pixel
    shared = w * h if w > 0 and h > 0 else 0
    union = (a[2] - a[0] + pixel) * (a[3] - a[1] + pixel) + (b[2] - b[0] + pixel) * (b[3] - b[1] + pixel) - shared
    return shared / union if union > 0 else 0


def area_under(points):
    """Trapezoids from (precision 1, recall 0). points: (precision, recall)"""
    points = [(1.0, 0.0), *points]
    return sum((r2 - r1) * (p1 + p2) / 2 for (p1, r1), (p2, r2) in zip(points, points[1:], strict=False))


def area_of_envelope(points):
    total, last = 0.0, 0.0
    for number, (_, recall) in enumerate(points):
        total += (recall - last) * max(p for p, _ in points[number:])
        last = recall
    return total


def curve(hits, positives):
    return [(sum(hits[: n + 1]) / (n + 1), sum(hits[: n + 1]) / positives) for n in range(len(hits))]


def ava(truth, detections, labels, excluded, threshold, order):
    """AP by label, None without ground truth. Rows (video, second, box, label[, score])."""

    def judged(rows):
        return [r for r in rows if r[2][0] < r[2][2] and r[2][1] < r[2][3] and r[3] in labels and r[:2] not in excluded]

    truth, detections = judged(truth), judged(detections)
    found = {}
    for label in labels:
        true = [r for r in truth if r[3] == label]
        mine = [r for r in detections if r[3] == label]
        turns = sorted(mine, key=lambda r: -r[4]) if order == "score" else mine
        taken, hit = set(), {}
        for row in turns:
            here = [n for n, r in enumerate(true) if r[:2] == row[:2]]
            best = max(here, key=lambda n, row=row: iou(row[2], true[n][2]), default=None)
            hit[id(row)] = best is not None and iou(row[2], true[best][2]) >= threshold and best not in taken
            taken |= {best} if hit[id(row)] else set()
        hits = [hit[id(row)] for row in sorted(mine, key=lambda r: -r[4])]
        found[label] = area_of_envelope(curve(hits, len(true))) if true else None
    return found


def suppress(tubelets, above, pixel):
    """[(boxes, score)] -> the same with lowered scores, the best first; of equal scores the later."""
    order = sorted(range(len(tubelets)), key=lambda n: (-tubelets[n][1], -n))
    scores = {n: tubelets[n][1] for n in order}
    while order:
        first, *order = order
        for n in list(order):
            k = len(tubelets[n][0])
            total = np.float32(0)
            for a, b in zip(tubelets[first][0], tubelets[n][0], strict=True):
                total += np.float32(iou(a, b, np.float32(pixel)))
            if total > np.float32(above * k):
                scores[n] = tubelets[n][1] * (1 - total)
                order.remove(n)
    return [(tubelets[n][0], scores[n]) for n in sorted(scores, key=lambda n: (-scores[n], -n))]


def true_boxes(tubes, label):
    """{(video, frame): boxes}"""
    found = {}
    for video, some in tubes.videos.items():
        for tube in some:
            for frame, box in zip(tube.frames.tolist(), tube.boxes.tolist(), strict=True):
                if tube.label == label:
                    found.setdefault((video, frame), []).append(box)
    return found


def rows(detections):
    return [
        (detections.videos[v], f, n, [list(box) for box in boxes], s)
        for v, f, n, boxes, s in zip(
            detections.video,
            detections.frame.tolist(),
            detections.label.tolist(),
            detections.boxes,
            detections.scores,
            strict=True,
        )
    ]


def claim(ranked, truth, overlap, threshold, positives):
    """ranked: [(key, what)], the best first;  truth: {key: [what]}"""
    left, hits = {key: list(some) for key, some in truth.items()}, []
    for key, one in ranked:
        here = left.get(key, [])
        best = max(range(len(here)), key=lambda n, one=one, here=here: overlap(one, here[n]), default=None)
        hits.append(best is not None and overlap(one, here[best]) >= threshold)
        if hits[-1]:
            del here[best]
    return area_under(curve(hits, positives)) if positives else None


def frame_precision(tubes, detections, rules, threshold):
    """AP by label, None without ground truth."""
    annotated = {key for label in range(len(tubes.labels)) for key in true_boxes(tubes, label)}
    found = []
    for label in range(len(tubes.labels)):
        frames = {}
        for video, first, number, boxes, score in rows(detections):
            for at, box in enumerate(boxes):
                if number == label and (rules.frames == "all" or (video, first + at) in annotated):
                    frames.setdefault((video, first + at), []).append(([box], score))
        ranked = [(key, *one) for key in sorted(frames) for one in suppress(frames[key], rules.suppress, rules.pixel)]
        ranked.sort(key=lambda row: -row[2])
        truth = true_boxes(tubes, label)
        ranked = [(key, [float(side) for side in boxes[0]]) for key, boxes, _ in ranked]
        overlap = lambda a, b: iou(a, b, rules.pixel)  # noqa: E731
        found.append(claim(ranked, truth, overlap, threshold, sum(map(len, truth.values()))))
    return found


def linked(detections, video, label, rules, last_frame):
    """[(score, {frame: box})] of one video and class."""
    k = detections.length
    done, current = [], []
    for frame in range(last_frame + 1):
        here = [(boxes, s) for v, f, n, boxes, s in rows(detections) if (v, f, n) == (video, frame, label)]
        free = suppress(here, rules.suppress, rules.pixel)[: rules.keep]
        current.sort(key=lambda tube: -sum(float(one[2]) for one in tube) / len(tube))
        for tube in list(current):
            last, boxes, _ = tube[-1]
            offset = min(frame - last, k - 1)

            def near(one, boxes=boxes, offset=offset):
                shared = [iou(a, b, rules.pixel) for a, b in zip(boxes[offset:], one[0], strict=False)]
                return sum(shared) / len(shared) >= rules.link

            best = next((one for one in free if near(one)), None)
            if best is not None:
                tube.append((frame, *best))
                free.remove(best)
            elif frame - last >= k:
                done.append(tube)
                current.remove(tube)
        current += [[(frame, *one)] for one in free]
    found = []
    for tube in done + current:
        boxes = {}
        for first, some, _ in tube:
            for at, box in enumerate(some):
                boxes.setdefault(first + at, []).append(box)
        score = sum(float(one[2]) for one in tube) / len(tube)
        if len(boxes) >= rules.shortest and score >= rules.weakest:
            found.append((score, {frame: np.mean(np.array(some, float), 0) for frame, some in boxes.items()}))
    return found


def tube_iou(a, b, pixel):
    """{frame: box} each."""
    common = sorted(set(a) & set(b))
    if not common:
        return 0.0
    return float(np.mean([iou(a[f], b[f], pixel) for f in common])) * len(common) / len(set(a) | set(b))


def video_precision(tubes, detections, rules, threshold, last_frame):
    found = []
    for label in range(len(tubes.labels)):
        ranked, truth = [], {}
        for video in sorted(tubes.videos):
            kept = []
            for score, boxes in sorted(linked(detections, video, label, rules, last_frame), key=lambda one: -one[0]):
                if all(tube_iou(boxes, other, rules.pixel) <= rules.apart for _, other in kept):
                    kept.append((score, boxes))
            ranked += [(score, video, boxes) for score, boxes in kept]
            truth[video] = [
                dict(zip(tube.frames.tolist(), tube.boxes.double().numpy(), strict=True))
                for tube in tubes.videos[video]
                if tube.label == label
            ]
        ranked = [(video, boxes) for _, video, boxes in sorted(ranked, key=lambda one: -one[0])]
        overlap = lambda a, b: tube_iou(a, b, rules.pixel)  # noqa: E731
        found.append(claim(ranked, truth, overlap, threshold, sum(map(len, truth.values()))))
    return found


def scene(seed, length=1, videos=3, labels=3, frames=9):
    """Small boxes that often overlap, in videos of which some have no tube, of classes of which one may have none."""
    rng = np.random.default_rng(seed)
    tubes, found = {}, []
    for number in range(videos):
        name = f"v{number}"
        tubes[name] = []
        for _ in range(rng.integers(0, 4)):
            first, count = int(rng.integers(0, frames - 2)), int(rng.integers(2, frames))
            corner = rng.integers(0, 10, 2) + np.cumsum(rng.integers(-1, 2, (count, 2)), 0)
            boxes = np.concatenate([corner, corner + rng.integers(5, 9, 2)], 1)
            span = torch.arange(first, min(first + count, frames))
            tubes[name].append(Tube(int(rng.integers(labels)), span, torch.tensor(boxes[: len(span)]).float()))
        for tube in [*tubes[name], *tubes[name]]:
            for frame, box in zip(tube.frames.tolist(), tube.boxes.tolist(), strict=True):
                if frame + length <= frames and rng.random() < 0.8:
                    moved = np.array(box) + rng.integers(-1, 2, (length, 4))
                    label = tube.label if rng.random() < 0.9 else int(rng.integers(labels))
                    found.append((name, frame, label, moved))
        for _ in range(rng.integers(0, 6)):
            corner = rng.integers(0, 12, 2)
            box = np.concatenate([corner, corner + 6])
            found.append((name, int(rng.integers(0, frames - length + 1)), int(rng.integers(labels)), [box] * length))
    scores = (rng.permutation(4 * len(found) + 1)[: len(found)] + 1) / 4096  # all different, exact as float32
    video, frame, label, boxes = ([row[at] for row in found] for at in range(4))
    detections = as_detections(video, frame, label, np.array(boxes).reshape(-1, length, 4), scores)
    return Tubes([f"class {n}" for n in range(labels)], None, tubes), detections
