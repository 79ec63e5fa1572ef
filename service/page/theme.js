// Light and dark: as the system has it, unless the person chooses; and the theme's colours, for canvases.

import { find } from './dom.js';
import { setText } from './language.js';
import { remember } from './remember.js';

const dark = matchMedia('(prefers-color-scheme: dark)');

/** What is drawn in the theme's colours. */
/** @type {Set<() => void>} */
const drawn = new Set();

/** @type {Map<string, string>} */
const colours = new Map();

/** Start the button that switches; `saved-theme.js` has put a choice into effect before the first paint. */
export function startTheme() {
  const button = find('theme', HTMLButtonElement);
  button.addEventListener('click', () => {
    const chosen = isDark() ? 'light' : 'dark';
    document.documentElement.dataset.theme = chosen;
    remember('theme', chosen);
    changed();
  });
  dark.addEventListener('change', changed);
  setText(button, isDark() ? 'page.theme.light' : 'page.theme.dark');
}

/**
 * A colour of the theme in use, as a canvas takes it.
 *
 * @param {string} property such as `--text`
 */
export function themeColour(property) {
  let colour = colours.get(property);
  if (colour === undefined) {
    const probe = document.createElement('span');
    probe.style.setProperty('color', `var(${property})`);
    document.body.append(probe);
    colour = getComputedStyle(probe).color;
    probe.remove();
    colours.set(property, colour);
  }
  return colour;
}

/**
 * Draw again whenever the theme changes.
 *
 * @param {() => void} draw
 * @returns {() => void} stops it
 */
export function followTheme(draw) {
  drawn.add(draw);
  return () => drawn.delete(draw);
}

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === 'dark' : dark.matches;
}

function changed() {
  colours.clear();
  setText(find('theme', HTMLButtonElement), isDark() ? 'page.theme.light' : 'page.theme.dark');
  for (const draw of drawn) {
    draw();
  }
}
