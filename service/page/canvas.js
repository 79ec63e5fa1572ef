// Canvases as sharp as the screen.

/** What faces are drawn with. */
export const EMOJI = '"Apple Color Emoji", "Segoe UI Emoji", "Noto Color Emoji", sans-serif';

/**
 * Give a canvas the pixels of its place, all empty.
 *
 * @param {HTMLCanvasElement} canvas
 * @returns {{context: CanvasRenderingContext2D, width: number, height: number} | null} in CSS pixels; null where it is not on show
 */
export function fit(canvas) {
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
