"""The figures of notebook 5, stage 1."""

from matplotlib.figure import Figure

from jsws_lib.course.figures.common import draw_image, draw_map, draw_segmentation


def draw_frame(fig: Figure, image, labels_only, joint, sal_map, *, title: str = ""):
    """One frame of two trainings: the image, what S and M see in it, and S of M.

    Args:
        labels_only, joint: (H, W) uint8, categories by S and by M.
        sal_map: (H, W) uint8, M's saliency map.
    """
    axes = fig.subplots(2, 2).ravel()
    draw_image(axes[0], image, title="image")
    draw_segmentation(axes[1], labels_only, image=image, title="S: labels alone")
    draw_map(axes[2], sal_map, vmax=255, title="M: saliency map")
    draw_segmentation(axes[3], joint, image=image, title="M: labels and masks")
    fig.suptitle(title, fontsize=10, fontweight="bold")
