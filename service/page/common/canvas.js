// Canvases with the resolution of the screen.

/** Font families for emoji. */
export const EMOJI_FONT = '"Apple Color Emoji", "Segoe UI Emoji", "Noto Color Emoji", sans-serif';
/** Font families for text in both languages. */
export const TEXT_FONT = 'system-ui, "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", sans-serif';

/**
 * Set a canvas to the size of its layout box in device pixels, and clear it.
 *
 * @param {HTMLCanvasElement} canvas
 * @returns {{context: CanvasRenderingContext2D, width: number, height: number} | null} in CSS pixels; null where the canvas is not visible
 */
export function prepareCanvas(canvas) {
  const { clientWidth: width, clientHeight: height } = canvas;
  canvas.width = Math.round(width * devicePixelRatio);
  canvas.height = Math.round(height * devicePixelRatio);
  const context = canvas.getContext('2d');
  if (!context || !width) {
    return null;
  }
  context.scale(devicePixelRatio, devicePixelRatio);
  return { context, width, height };
}
