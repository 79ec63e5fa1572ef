// The width of the tracks: that of the page, or wider and scrollable, because an hour has hundreds of segments.

import { find } from '../common/dom.js';

const MAX_ZOOM = 8;
/** Audio shorter than this many seconds needs no zoom. */
const MIN_SECONDS = 60;

const box = find('tracks-scroll', HTMLElement);
const tracks = find('tracks', HTMLElement);
let zoom = 1;
/** Duration of the shown audio in seconds. */
let shown = 0;

/** Connect the buttons, once. */
export function startZoom() {
  find('zoom-in', HTMLButtonElement).addEventListener('click', () => zoomTo(zoom * 2));
  find('zoom-out', HTMLButtonElement).addEventListener('click', () => zoomTo(zoom / 2));
}

/**
 * Reset the zoom for other audio; another channel of the same audio keeps it.
 *
 * @param {number} duration seconds
 */
export function resetZoom(duration) {
  if (duration !== shown) {
    shown = duration;
    find('zoom', HTMLElement).hidden = duration < MIN_SECONDS;
    zoomTo(1);
  }
}

/**
 * Scroll to a position unless it is visible.
 *
 * @param {number} share of the duration, 0 to 1
 */
export function keepVisible(share) {
  const at = share * tracks.offsetWidth;
  if (zoom > 1 && (at < box.scrollLeft || at > box.scrollLeft + box.clientWidth)) {
    box.scrollLeft = at - box.clientWidth / 10;
  }
}

/** @param {number} wanted */
function zoomTo(wanted) {
  const centre = (box.scrollLeft + box.clientWidth / 2) / tracks.offsetWidth;
  zoom = Math.min(Math.max(wanted, 1), MAX_ZOOM);
  tracks.style.setProperty('width', `${100 * zoom}%`);
  box.scrollLeft = centre * tracks.offsetWidth - box.clientWidth / 2;
  const [zoomIn, zoomOut] = [find('zoom-in', HTMLButtonElement), find('zoom-out', HTMLButtonElement)];
  const hadFocus = [zoomIn, zoomOut].includes(/** @type {any} */ (document.activeElement));
  zoomIn.disabled = zoom === MAX_ZOOM;
  zoomOut.disabled = zoom === 1;
  if (hadFocus && (zoomIn.disabled || zoomOut.disabled)) {
    (zoomIn.disabled ? zoomOut : zoomIn).focus();
  }
}
