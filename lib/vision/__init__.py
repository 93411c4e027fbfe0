"""Pictures and films: one reader and one writer for files, alignment, crops, conventional codecs, and measures.

    images    picture files as a viewer shows them      write    outputs that are whole, and never an input
    video     films with their time, sound and looks    align    a similarity from a frame to a square crop, and back
    codecs    JPEG, HEVC intra, ... in memory           crops    random crops of photographs for training
    metrics   PSNR, SSIM, LPIPS, Frechet distances      shots    where a film cuts

A film is opened in `film`, written in `muxing`, and what travels along beside its pictures is in `companions`.

Images are float tensors ``(N, C, H, W)`` in [0, 1] or, as files hold them, uint8 ``(H, W, 3)`` or ``(H, W)``.
"""
