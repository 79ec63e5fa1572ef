// How wide the tracks are: as wide as the page, or wider and to be scrolled, since an hour has hundreds of segments.

import { find } from './dom.js';

const WIDEST = 8;
/** Seconds from which on there is something to gain. */
const LONG = 60;

const box = find('tracks-scroll', HTMLElement);
const tracks = find('tracks', HTMLElement);
let zoom = 1;
let shown = 0;

/** Connect the buttons, once. */
export function startZoom() {
  find('zoom-in', HTMLButtonElement).addEventListener('click', () => zoomTo(zoom * 2));
  find('zoom-out', HTMLButtonElement).addEventListener('click', () => zoomTo(zoom / 2));
}

/**
 * Begin with everything in sight, unless it is another channel of what is on show.
 *
 * @param {number} duration seconds
 */
export function resetZoom(duration) {
  if (duration !== shown) {
    shown = duration;
    find('zoom', HTMLElement).hidden = duration < LONG;
    zoomTo(1);
  }
}

/**
 * Scroll to a moment where it is not in sight.
 *
 * @param {number} share of the duration
 */
export function keepInSight(share) {
  const at = share * tracks.offsetWidth;
  if (zoom > 1 && (at < box.scrollLeft || at > box.scrollLeft + box.clientWidth)) {
    box.scrollLeft = at - box.clientWidth / 10;
  }
}

/** @param {number} wanted */
function zoomTo(wanted) {
  const middle = (box.scrollLeft + box.clientWidth / 2) / tracks.offsetWidth;
  zoom = Math.min(Math.max(wanted, 1), WIDEST);
  tracks.style.setProperty('width', `${100 * zoom}%`);
  box.scrollLeft = middle * tracks.offsetWidth - box.clientWidth / 2;
  const [wider, narrower] = [find('zoom-in', HTMLButtonElement), find('zoom-out', HTMLButtonElement)];
  const hadFocus = [wider, narrower].includes(/** @type {any} */ (document.activeElement));
  wider.disabled = zoom === WIDEST;
  narrower.disabled = zoom === 1;
  if (hadFocus && (wider.disabled || narrower.disabled)) {
    (wider.disabled ? narrower : wider).focus();
  }
}
