// Drives a headless Chromium over an inspection's page and prints as JSON what was seen.
// Run by test_browser.py: node --input-type=module -e SCRIPT PAGE WIDTH HEIGHT, in the folder of its packages.
import chromium from "@sparticuz/chromium";
import puppeteer from "puppeteer-core";

const [file, width, height] = process.argv.slice(-3);
const seen = { problems: [], requests: [] };
const browser = await puppeteer.launch({
  args: [...chromium.args, "--no-sandbox"],
  executablePath: await chromium.executablePath(),
  headless: "shell",
});
try {
  const page = await browser.newPage();
  page.on("console", (message) => seen.problems.push(message.text()));
  page.on("pageerror", (error) => seen.problems.push(error.message));
  page.on("request", (request) => { if (!request.url().startsWith("data:")) seen.requests.push(request.url()); });
  await page.setViewport({ width: +width, height: +height, hasTouch: +width < 700 });
  await page.goto(`file://${file}`);
  await page.waitForFunction("document.body.dataset.ready");
  const step = () => page.$eval("#slider", (slider) => +slider.value);
  const text = (selector) => page.$eval(selector, (found) => found.textContent);
  const box = (selector) => page.$eval(selector, (found) => {
    found.scrollIntoView({ block: "center" });
    const { x, y, width, height } = found.getBoundingClientRect();
    return { x, y, width, height };
  });
  const press = async (...keys) => {
    for (const key of keys) await page.keyboard.down(key);
    for (const key of keys.reverse()) await page.keyboard.up(key);
    return step();
  };

  seen.keys = [await press("ArrowRight"), await press("Shift", "ArrowRight"), await press("ArrowLeft"),
    await press("End"), await press("ArrowRight"), await press("Home"), await press("ArrowLeft")];

  let place = await box("#slider");
  await page.mouse.click(place.x + place.width / 2, place.y + place.height / 2);
  seen.slider = await step();
  seen.afterSlider = await press("ArrowRight"); // once, although the slider has the focus

  place = await box("#charts .chart:nth-of-type(3)");
  const at = async (share) => [place.x + 84 + share * (place.width - 94), place.y + place.height / 2];
  await page.mouse.move(...(await at(0.25)));
  seen.chartTip = await text("#tip");
  seen.stayed = await step();
  await page.mouse.down();
  seen.pressed = await step();
  await page.mouse.move(...(await at(0.76)), { steps: 4 });
  seen.dragged = await step();
  await page.mouse.up();
  seen.cursor = await page.evaluate(() => {
    const charts = document.getElementById("charts").getBoundingClientRect();
    const cursor = document.getElementById("cursor").getBoundingClientRect();
    return (cursor.x + cursor.width / 2 - charts.x - 84) / (charts.width - 94);
  });
  seen.numbers = await page.$$eval(".chart h3", (titles) => titles.map((title) => title.textContent));
  seen.readout = await page.$$eval("#readout div", (rows) => rows.map((row) => [...row.children].map((one) => one.textContent)));

  place = await box(".head canvas");
  await page.mouse.move(place.x + place.width * 0.4, place.y + place.height * 0.7);
  seen.cellTip = await text("#tip");
  seen.pixel = await page.$eval(".head canvas", (canvas) => {
    const { width, height } = canvas;
    return [...canvas.getContext("2d").getImageData(Math.floor(width * 0.4), Math.floor(height * 0.7), 1, 1).data];
  });
  await page.mouse.move(5, 5);
  seen.tipGone = await page.$eval("#tip", (tip) => tip.hidden);

  if (+width < 700) {
    place = await box("#charts .chart:nth-of-type(2)");
    await page.touchscreen.tap(...(await at(0.5)));
    seen.touched = await step();
  }

  await press("Home");
  await page.click("#play");
  await page.waitForFunction("+document.getElementById('slider').value >= 3");
  await page.click("#play");
  seen.played = await step();
  await new Promise((resolve) => setTimeout(resolve, 300));
  seen.paused = await step();
  await press(" ");
  seen.spaceOnButton = await page.$eval("#play", (button) => button.getAttribute("aria-label"));

  if (await page.$("#tabs button:nth-child(2)")) {
    await page.click("#tabs button:nth-child(2)");
    await page.waitForFunction("document.querySelector('#tabs button:nth-child(2)').getAttribute('aria-selected') === 'true'");
    seen.secondImage = (await page.$eval("#screen", (image) => image.src)).slice(0, 15);
    seen.tab = await page.evaluate("document.body.dataset.ready");
  }
  if (await page.$("button.tile")) {
    await page.click("button.tile:nth-child(4)");
    seen.tile = await step();
    seen.answer = await page.$eval(".answer ol", (list) => list.textContent);
  }

  seen.width = await page.evaluate("document.documentElement.scrollWidth");
  seen.smallestFont = await page.evaluate(() => Math.min(...[...document.querySelectorAll("body *")]
    .filter((one) => [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim()) && one.offsetParent)
    .map((one) => parseFloat(getComputedStyle(one).fontSize))));
  seen.cut = await page.evaluate(() => [...document.querySelectorAll("h1, dt, dd, .names span, .chart h3 span, output")]
    .filter((one) => one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).display !== "inline").map((one) => one.textContent));
} catch (error) {
  seen.problems.push(`the driver stopped: ${error.message}`);
} finally {
  await browser.close();
}
console.log(JSON.stringify(seen));
